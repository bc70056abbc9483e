"""Report on huddled instances: pictures and a page."""

FILES = ("report.html", "huddle.json", "huddle.csv", "ap.png", "images.png", "difference.png")
"""All that a report can leave in its folder."""
