"""Results to look through in a browser: one file, which needs no server."""
