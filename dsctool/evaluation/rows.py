"""What the tables of all analyses share, on the terminal and on pages."""

from __future__ import annotations

import math

Table = tuple[list[str], list[list[str]]]
"""Header and rows, as texts."""


def points(value: float | None, *, sign: bool = False) -> str:
    """AP in points of 100, one decimal, as papers print it; ``-`` for none. sign: also a plus, and a true minus."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{100 * value:.1f}"
    if float(text) == 0:
        return "0.0"
    return (text.replace("-", "\N{MINUS SIGN}") if value < 0 else f"+{text}") if sign else text
