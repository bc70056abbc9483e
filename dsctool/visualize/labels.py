"""Name tags on a picture, kept apart from each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """A text that belongs to a box."""

    text: str
    box: Rectangle
    color: Color


def draw_tags(canvas: Image.Image, tags: Sequence[Tag], *, font_size: int) -> None:
    """Draw every tag at or in its box, where it hides as little of other tags and small boxes as possible.

    Small boxes choose first: they have the fewest places. A tag that is large for its box, or finds no free
    place, is set smaller.
    """
    boxes = [tag.box for tag in tags]
    placed: list[Rectangle] = []
    drawn: list[tuple[Rectangle, Tag, int]] = []
    for tag in sorted(tags, key=lambda tag: _area(tag.box)):
        rectangle, size = _place(tag, placed, boxes, canvas.size, font_size)
        placed.append(rectangle)
        drawn.append((rectangle, tag, size))
    overlay = Image.new("RGBA", canvas.size)
    draw = ImageDraw.Draw(overlay)
    for rectangle, tag, size in reversed(drawn):
        _draw(draw, rectangle, tag, size)
    canvas.paste(overlay, mask=overlay)


def _place(
    tag: Tag, placed: Sequence[Rectangle], boxes: Sequence[Rectangle], canvas: tuple[int, int], font_size: int
) -> tuple[Rectangle, int]:
    """The tag's rectangle and font size."""
    small = max(9, round(0.75 * font_size))
    width, height = _extent(tag.text, font_size)
    x1, y1, x2, y2 = tag.box
    roomy = x2 - x1 > 0.6 * width and y2 - y1 > 2 * height
    others = [box for box in boxes if box != tag.box and _area(box) < 6 * width * height]
    tried: list[tuple[float, Rectangle, int]] = []
    for size in (font_size, small) if roomy else (small,):
        rectangles = list(_candidates(tag, size, canvas))
        hidden = _hidden(rectangles, placed) + 0.3 * _hidden(rectangles, others)
        first = int(hidden.argmin())
        tried.append((float(hidden[first]), rectangles[first], size))
        if hidden[first] == 0:
            break
    _, rectangle, size = min(tried, key=lambda place: place[0])
    return rectangle, size


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


def _hidden(places: Sequence[Rectangle], others: Sequence[Rectangle]) -> NDArray[np.float64]:
    """How much of the other rectangles each of the places would hide, in pixels."""
    one, other = np.array(places)[:, None], np.array(others).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    hidden: NDArray[np.float64] = sides.clip(min=0).prod(axis=-1).sum(axis=1)
    return hidden
