"""Analysis of errors: pictures and a page."""

FILES = ("errors.json", "errors.html", "errors.png", "confusion.png", "curves.png")
"""All that an analysis can leave in its folder."""
