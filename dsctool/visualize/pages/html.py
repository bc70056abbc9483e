"""Pages that are one file each: they need no network, fit phones, and come in light and dark.

A page is a template in ``templates``; what pages share is in ``pieces.html``. All that a template is given is plain
text and is escaped there.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from dsctool.evaluation.rows import points

Hue = Literal["more", "less", "scale"]
"""Names of the style's colours for a heat map: above zero, below zero, or of one direction."""


@dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map. text: in it; ``small`` below, ``title`` when pointed at.

    share: how strong its colour is, from 0 to 1.
    """

    text: str
    share: float = 0.0
    hue: Hue = "scale"
    small: str = ""
    title: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A table whose cells are coloured. corner: above the names of the rows. None is an empty place."""

    caption: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell | None]]]


def scaled(maps: Sequence[HeatMap]) -> list[HeatMap]:
    """The same with shares, which may be of any size before, on one scale: the largest of all is 1."""
    cells = [cell for each in maps for _, row in each.rows for cell in row if cell is not None]
    reach = max([1e-9, *(cell.share for cell in cells)])
    return [
        replace(
            each,
            rows=[
                (name, [cell and replace(cell, share=cell.share / reach) for cell in row]) for name, row in each.rows
            ],
        )
        for each in maps
    ]


def render(template: str, values: Mapping[str, object]) -> str:
    """The template of that name, filled in; a value that it lacks is an error."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """The templates, with what they may call beside Jinja's own."""
    loader = PackageLoader("dsctool.visualize.pages")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"symbols": symbols, "jpeg": jpeg, "points": points, "file_name": lambda path: Path(path).name}
    return made


def symbols(text: str) -> Markup:
    """Plain text as HTML, symbols like ``T_O`` as in formulas."""
    return Markup(re.sub(r"\b([A-Z])_([A-Z])\b", r"<i>\1</i><sub>\2</sub>", str(escape(text))))


def jpeg(image: Image.Image) -> str:
    """The picture as the address of an image element."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
