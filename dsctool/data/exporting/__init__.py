"""Data sets as other tools and layouts have them."""
