"""Pieces of pages that are one file each: they need no network, fit phones, and come in light and dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Literal

from PIL import Image

Hue = Literal["more", "less", "scale"]
"""Names of the style's colours for a heat map: above zero, below zero, or of one direction."""


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML document. title: plain text. body: HTML, section by section."""
    template = Template(_template("page.html"))
    return template.substitute(title=escape(title), style=style().rstrip(), body="\n".join(body))


def style() -> str:
    """The style sheet that all pieces of this module rely on."""
    return _template("style.css")


def _template(name: str) -> str:
    return (files("dsctool.visualize.pages") / "templates" / name).read_text(encoding="utf-8")


def subscripted(text: str) -> str:
    """Plain text as HTML, symbols like ``T_O`` as in formulas."""
    return re.sub(r"\b([A-Z])_([A-Z])\b", r"<i>\1</i><sub>\2</sub>", escape(text))


# --- text -------------------------------------------------------------------------------------------


def facts(entries: Sequence[tuple[str, str]]) -> str:
    """Large values with what they are below: ``(value, meaning)``, plain text."""
    boxes = (
        f'<div class="fact"><b>{escape(value)}</b><span>{subscripted(text)}</span></div>' for value, text in entries
    )
    return f'<div class="facts">{"".join(boxes)}</div>'


def cards(parts: Sequence[str]) -> str:
    """Pieces of HTML side by side where there is room, else below each other."""
    return '<div class="cards">' + "".join(f'<div class="card">{part}</div>' for part in parts) + "</div>"


# --- tables -----------------------------------------------------------------------------------------


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


def heat_table(
    caption: str, corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[HeatCell | None]]]
) -> str:
    """A heat map as a table with its numbers; None is an empty place."""
    head = "".join(f'<th scope="col">{subscripted(text)}</th>' for text in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_heat_cell(cell) for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="wide"><table><caption>{subscripted(caption)}</caption>'
        f"<thead><tr><th>{subscripted(corner)}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heat_cell(cell: HeatCell | None) -> str:
    if cell is None:
        return '<td class="none">–</td>'  # noqa: RUF001
    small = f"<small>{escape(cell.small).replace('…', '…<wbr>')}</small>" if cell.small else ""
    look = f"--share:{min(max(cell.share, 0.0), 1.0):.3f};--hue:var(--{cell.hue})"
    return f'<td class="heat" style="{look}" title="{escape(cell.title)}">{escape(cell.text)}{small}</td>'


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts in columns, set to the right."""
    head = "".join(f'<th scope="col">{subscripted(text)}</th>' for text in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- pictures ---------------------------------------------------------------------------------------


def bar_chart(caption: str, bars: Sequence[tuple[str, int]]) -> str:
    """Counts by name as horizontal bars."""
    largest = max([1, *(count for _, count in bars)])
    rows = "".join(
        f"<span>{subscripted(name)}</span>"
        f'<div><i style="width:{100 * count / largest:.2f}%"></i></div><span>{count}</span>'
        for name, count in bars
    )
    return f'<h3>{subscripted(caption)}</h3><div class="bars">{rows}</div>'


def picture(image: Image.Image, *, text: str, quality: int = 82) -> str:
    """An image element with the picture in it, as JPEG. text: for those who do not see it."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" alt="{escape(text)}">'
    )
