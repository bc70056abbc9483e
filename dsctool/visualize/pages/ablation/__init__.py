"""An ablation as tables and as a page."""
