"""Pictures of panoptic results: things in strong colours with outlines, stuff muted, void darkened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from dsctool.data.panoptic import PanopticCategory
from dsctool.files import whole_file
from dsctool.models.panoptic import Fused, FusedSegment
from dsctool.visualize.colors import Color, shade
from dsctool.visualize.draw import outline, pillow, rim, thinned, tint
from dsctool.visualize.labels import Tag, draw_tags

STUFF_FILL = 0.5
"""Share of a kind of stuff's colour in its pixels; the rest is the image, half of it grey, as under things."""
VOID_LIGHT = 0.6
"""Brightness of what belongs to nothing, which is grey."""
NAMED_SHARE = 0.003
"""Stuff that covers less of the image than this has no name in the picture."""


def save_panoptic(
    target: Path, image: Tensor, result: Fused, categories: Mapping[int, PanopticCategory], *, labels: bool = True
) -> None:
    """Write ``image`` with its segments as JPEG to ``target``, whole or not at all; as :func:`draw_panoptic`."""
    picture = draw_panoptic(image, result, categories, labels=labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="JPEG", quality=92, subsampling=0)


def draw_panoptic(
    image: Image.Image | Tensor, result: Fused, categories: Mapping[int, PanopticCategory], *, labels: bool = True
) -> Image.Image:
    """The image with its segments on it, at the image's size; with their names where ``labels`` says so.

    image: Pillow image, or ``(3, h, w)`` uint8 RGB, of the size of the result. categories: by id. A category has one
    colour in all pictures; several things of it have shades of that.
    """
    original = pillow(image)
    grey = original.convert("L").convert("RGB")
    calm = Image.blend(original, grey, 0.5)
    things = [segment for segment in result.segments if categories[segment.category].is_thing]
    stuff = [segment for segment in result.segments if not categories[segment.category].is_thing]
    canvas = _muted(calm, grey, result.ids, things, {each.id: categories[each.category].color for each in stuff})
    line = max(1.5, min(original.size) / 300)
    tags, drawn, seen = [], [], Counter[int]()
    for segment in things:
        category = categories[segment.category]
        color = shade(category.color, seen[segment.category])
        seen[segment.category] += 1
        mask = result.ids == segment.id
        width = thinned(line, int(np.count_nonzero(mask)))
        tint(canvas, calm, mask, color, width)
        drawn.append((mask, color, width))
        tags.append(Tag(f"{category.name} {segment.score:.2f}", _box(mask), color, short=category.name))
    for mask, _, width in drawn:
        rim(canvas, mask, width)
    for mask, color, width in drawn:
        outline(canvas, mask, color, width)
    if not labels:
        return canvas
    font = max(10, round(min(original.size) / (36 if len(things) < 20 else 42)))
    for segment in stuff:
        mask = result.ids == segment.id
        if np.count_nonzero(mask) >= NAMED_SHARE * mask.size:
            category = categories[segment.category]
            tags.append(Tag(category.name, _middle(mask, font), category.color))
    draw_tags(canvas, tags, font_size=font)
    return canvas


def _muted(
    calm: Image.Image,
    grey: Image.Image,
    ids: NDArray[np.int32],
    things: Sequence[FusedSegment],
    stuff: Mapping[int, Color],
) -> Image.Image:
    """The picture without its things: each kind of stuff in its colour, void grey."""
    highest = max([*stuff, *(each.id for each in things)], default=0)
    colors = np.zeros((highest + 1, 3), dtype=np.uint8)
    fill = np.zeros(highest + 1, dtype=np.uint8)
    for identity, color in stuff.items():
        colors[identity], fill[identity] = color, round(255 * STUFF_FILL)
    light = np.full(highest + 1, 255, dtype=np.uint8)
    light[0] = round(255 * VOID_LIGHT)
    base = Image.composite(grey, calm, Image.fromarray(np.where(ids == 0, np.uint8(255), np.uint8(0))))
    base = Image.composite(base, Image.new("RGB", calm.size), Image.fromarray(light[ids]))
    return Image.composite(Image.fromarray(colors[ids]), base, Image.fromarray(fill[ids]))


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _middle(mask: NDArray[np.bool_], size: int) -> tuple[float, float, float, float]:
    """A small box where most of what is around belongs to the mask; size: of letters, in pixels."""
    around = 3 * size
    shape = Image.fromarray(np.where(np.pad(mask, around), np.uint8(255), np.uint8(0)))
    blurred = np.asarray(shape.filter(ImageFilter.BoxBlur(around)))[around:-around, around:-around]
    y, x = np.unravel_index(np.argmax(np.where(mask, blurred, 0)), mask.shape)
    return float(x) - size, float(y), float(x) + size, float(y) + size
