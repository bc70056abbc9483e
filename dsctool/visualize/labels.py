"""Name tags on a picture, kept apart from each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dsctool.visualize.colors import Color, text_color

Rectangle = tuple[float, float, float, float]
"""``x1, y1, x2, y2`` in pixels."""


@dataclass(frozen=True)
class Tag:
    """A text that belongs to a box.

    short: what is said where there is no room for ``text``. Without room for that either the tag is hidden; a tag
    without ``short`` never is.
    """

    text: str
    box: Rectangle
    color: Color
    short: str | None = None


@dataclass(frozen=True)
class Entry:
    """Of a legend. color: that it explains, or None."""

    text: str
    color: Color | None


MANY, ROOM, ROOM_OF_MANY = 20, 0.5, 0.25
"""Share of a box that its tag may be as large as, and where there are many tags."""
CROSSED = 0.2
"""Share of a tag that may hide others before it is left out."""
_PAPER, _INK = (236, 239, 241), (32, 38, 43)


def draw_tags(canvas: Image.Image, tags: Sequence[Tag], *, font_size: int) -> None:
    """Draw every tag at or in its box, where it hides as little of other tags and small boxes as possible.

    Small boxes choose first: they have the fewest places. A tag that is large for its box, or finds no free
    place, is set smaller, then shorter, then left out: none is larger than what it names.
    """
    boxes = np.array([tag.box for tag in tags], dtype=np.float64).reshape(-1, 4)
    placed: list[Rectangle] = []
    drawn: list[tuple[Rectangle, Tag, int]] = []
    room = ROOM if len(tags) < MANY else ROOM_OF_MANY
    for tag in sorted(tags, key=lambda tag: _area(tag.box)):
        place = _place(tag, placed, boxes, canvas.size, font_size, room)
        if place is not None:
            placed.append(place[0])
            drawn.append(place)
    if not drawn:
        return
    overlay = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(overlay)
    for rectangle, tag, size in reversed(drawn):
        _draw(draw, rectangle, tag, size)
    canvas.paste(overlay, mask=overlay)


def _place(
    tag: Tag, placed: Sequence[Rectangle], boxes: NDArray[np.float64], canvas: tuple[int, int], font_size: int,
    room: float,
) -> tuple[Rectangle, Tag, int] | None:  # fmt: skip
    """The tag's rectangle, what it says, and the font size; None where it is hidden."""
    tried: list[tuple[float, float, Rectangle, Tag, int]] = []
    for said, size in _forms(tag, font_size, room):
        width, height = _extent(said.text, size)
        small = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) < 6 * width * height
        others = boxes[small & (boxes != tag.box).any(axis=1)]
        rectangles = list(_candidates(said, size, canvas))
        crossed = _hidden(rectangles, placed)
        hidden = crossed + 0.3 * _hidden(rectangles, others)
        first = int(hidden.argmin())
        if tag.short is None or crossed[first] <= CROSSED * width * height:
            tried.append((float(hidden[first]), float(len(tried)), rectangles[first], said, size))
        if hidden[first] == 0:
            break
    if not tried:
        return None
    _, _, rectangle, said, size = min(tried, key=lambda place: place[:2])
    return rectangle, said, size


def _forms(tag: Tag, font_size: int, room: float) -> Iterator[tuple[Tag, int]]:
    """What the tag may say in which size, the best first. room: share of its box that it may be as large as."""
    x1, y1, x2, y2 = tag.box
    small = max(9, round(0.75 * font_size))
    for text in (tag.text,) if tag.short is None else (tag.text, tag.short):
        width, height = _extent(text, font_size)
        roomy = x2 - x1 > 0.6 * width and y2 - y1 > 2 * height
        for size in (font_size, small) if roomy else (small,):
            width, height = _extent(text, size)
            fits = width <= max(x2 - x1, y2 - y1) and width * height <= room * _area(tag.box)
            if tag.short is None or fits:
                yield replace(tag, text=text), size


def _candidates(tag: Tag, size: int, canvas: tuple[int, int]) -> Iterator[Rectangle]:
    """Places for a tag, the most usual first, all inside the canvas."""
    width, height = _extent(tag.text, size)
    x1, y1, x2, y2 = tag.box
    lefts = (x1, x2 - width, (x1 + x2 - width) / 2)
    tops = (y1 - height, y1, y2, y2 - height, (y1 + y2 - height) / 2)
    places = [(left, top) for top in tops for left in lefts]
    places += [(x1 - width, y1), (x2, y1), (x1 - width, y2 - height), (x2, y2 - height)]
    for left, top in places:
        left = min(max(left, 0), max(canvas[0] - width, 0))
        top = min(max(top, 0), max(canvas[1] - height, 0))
        yield (left, top, left + width, top + height)


def with_legend(picture: Image.Image, entries: Sequence[Entry], *, font_size: int) -> Image.Image:
    """The picture with rows of entries below it, as wide as it is; a swatch of its colour before an entry that has one.

    Of an entry that is wider than the picture there is the beginning.
    """
    pad, height, swatch = max(4, font_size // 2), round(1.7 * font_size), font_size
    rows: list[list[tuple[int, Entry, str]]] = [[]]
    left = pad
    for entry in entries:
        before = 0 if entry.color is None else swatch + pad // 2
        text = _shortened(entry.text, font_size, picture.width - 2 * pad - before)
        width = before + round(font(font_size).getlength(text))
        if rows[-1] and left + width > picture.width - pad:
            rows.append([])
            left = pad
        rows[-1].append((left, entry, text))
        left += width + 2 * pad
    paper = Image.new("RGB", (picture.width, picture.height + len(rows) * height + pad), _PAPER)
    paper.paste(picture)
    draw = ImageDraw.Draw(paper)
    for number, row in enumerate(rows):
        middle = picture.height + pad / 2 + (number + 0.5) * height
        for left, entry, text in row:
            if entry.color is not None:
                square = (left, round(middle - swatch / 2), left + swatch - 1, round(middle + swatch / 2) - 1)
                draw.rectangle(square, fill=entry.color)
                left += swatch + pad // 2
            draw.text((left, middle), text, font=font(font_size), fill=_INK, anchor="lm")
    return paper


def _shortened(text: str, size: int, width: int) -> str:
    while len(text) > 1 and font(size).getlength(text) > width:
        text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
        if text == "…":
            break
    return text


def _draw(draw: ImageDraw.ImageDraw, rectangle: Rectangle, tag: Tag, size: int) -> None:
    x1, y1, x2, y2 = (round(side) for side in rectangle)
    draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=size // 4, fill=(*tag.color, 225))
    padding = _padding(size)
    draw.text((x1 + padding, (y1 + y2) / 2), tag.text, font=font(size), fill=text_color(tag.color), anchor="lm")


def _extent(text: str, size: int) -> tuple[int, int]:
    """Width and height of a tag, in pixels."""
    return round(font(size).getlength(text)) + 2 * _padding(size), round(1.3 * size)


def _padding(size: int) -> int:
    return max(2, size // 4)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of ``size`` pixels, which comes with matplotlib and knows most alphabets."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _area(box: Rectangle) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _hidden(places: Sequence[Rectangle], others: Sequence[Rectangle] | NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of the other rectangles each of the places would hide, in pixels."""
    one, other = np.array(places)[:, None], np.array(others).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    hidden: NDArray[np.float64] = sides.clip(min=0).prod(axis=-1).sum(axis=1)
    return hidden
