"""Runs as their folders tell of them: numbers, state, configuration. Needs no torch."""
