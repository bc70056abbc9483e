"""The page about a training run, written as it goes."""
