"""Instances drawn over their image: tinted masks, outlines, names with scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

from dsctool.ops.spans import Spans
from dsctool.rle import Rle, cut_out
from dsctool.terms import Size
from dsctool.visualize.colors import Color, assign_colors, class_colors
from dsctool.visualize.labels import Entry, Tag, draw_tags, with_legend

if TYPE_CHECKING:  # results files are drawn without it
    from torch import Tensor

Scalar = TypeVar("Scalar", bound=np.generic)

FILL = 0.45
"""Share of an instance's colour in its mask; the rest is the image."""

THIN = 0.08
"""Width of an outline, of the side of a square of the mask's area: small instances have thin ones."""

DECODED = 1 << 24
"""Masks of more pixels are not decoded to be made smaller."""

Mask = Union[Mapping[str, object], NDArray[np.bool_], "Tensor"]
"""COCO RLE, or ``(h, w)`` bool."""
Corners = Union["Tensor", NDArray[np.floating], Sequence[Sequence[float]]]
"""Boxes ``(n, 4)``, xyxy in pixels."""


@dataclass(frozen=True)
class Style:
    """How instances are drawn. labels: with their names.

    color: what has a colour of its own, an instance or a class; None is an instance, without a legend. Else the picture
    has rows below it that say how many of each class it shows.
    """

    labels: bool = True
    color: Literal["class", "instance"] | None = None


PLAIN = Style()


def draw_instances(
    image: Image.Image | Tensor,
    *,
    boxes: Corners,
    names: Sequence[str],
    scores: Sequence[float] | NDArray[np.floating] | Tensor | None = None,
    masks: Sequence[Mask] | Tensor | None = None,
    size: Size | None = None,
    style: Style = PLAIN,
    classes: Sequence[str] = (),
    colors: Sequence[Color] | None = None,
) -> Image.Image:
    """The image with its instances on it, at the image's size, with a legend below it where ``style`` says so.

    image: Pillow image, or ``(3, h, w)`` uint8 RGB. names: one per instance. size: ``(h, w)`` that boxes and masks are
    in, where the image has been brought to another one. classes: all there are, for the same colours in all pictures.
    colors: one per instance, in place of those that ``style`` gives.
    Without masks the boxes are drawn. Large instances are painted
    first, so that small ones stay visible; a pixel shows the tint of the topmost instance only, outlines are drawn
    over all tints, inside of their masks so that those of neighbours stay apart, and names over everything: such as are
    smaller than what they name.
    """
    original = pillow(image)
    corners = _array(boxes, np.float64).reshape(-1, 4)
    if size is not None:
        corners = corners * (2 * (original.width / size[1], original.height / size[0]))
        masks = None if masks is None else [_resized(mask, original.size) for mask in masks]
    by_class = class_colors([*classes, *sorted({*names} - {*classes})])
    if colors is None:
        colors = [by_class[name] for name in names] if style.color == "class" else assign_colors(corners)
    canvas = original.copy()
    line = max(1.5, min(original.size) / 300)
    if masks is None:
        _draw_boxes(canvas, corners, colors, line)
    else:
        _draw_masks(canvas, original, masks, colors, line)
    font_size = max(10, round(min(original.size) / (36 if len(names) < 20 else 42)))
    if style.labels:
        tags = []
        for index, (name, (x1, y1, x2, y2), color) in enumerate(zip(names, corners.tolist(), colors, strict=True)):
            text = name if scores is None else f"{name} {float(scores[index]):.2f}"
            tags.append(Tag(text, (x1, y1, x2, y2), color, short=name))
        draw_tags(canvas, tags, font_size=font_size)
    if style.color is None:
        return canvas
    counted = Counter(names).most_common()
    entries = [Entry(f"{name} {count}", by_class[name] if style.color == "class" else None) for name, count in counted]
    total = [Entry(f"{len(names)} in all", None)] if len(entries) != 1 else []
    return with_legend(canvas, [*entries, *total], font_size=font_size)


def pillow(image: Image.Image | Tensor) -> Image.Image:
    """An RGB image of a Pillow image or ``(3, h, w)`` uint8 RGB."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _draw_boxes(canvas: Image.Image, boxes: NDArray[np.float64], colors: Sequence[Color], line: float) -> None:
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(line))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for index in np.argsort(-areas, kind="stable"):
        x1, y1, x2, y2 = (float(side) for side in boxes[index])
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colors[index], width=width)


# --- masks ------------------------------------------------------------------------------------------


def _draw_masks(
    canvas: Image.Image, original: Image.Image, masks: Sequence[Mask] | Tensor, colors: Sequence[Color], line: float
) -> None:
    """Tints, then rims, then outlines. One mask at a time is drawn, three times, so that memory stays one mask's."""
    areas = [_area(mask) for mask in masks]
    order = np.argsort([-area for area in areas], kind="stable")
    widths = [thinned(line, area) for area in areas]
    for index in order:
        tint(canvas, original, masks[index], colors[index], widths[index])
    for index in order:
        rim(canvas, masks[index], widths[index])
    for index in order:
        outline(canvas, masks[index], colors[index], widths[index])


def thinned(line: float, area: float) -> float:
    """The width of the outline of a mask of so many pixels. line: the widest."""
    return min(line, max(0.8, THIN * area**0.5))


def tint(canvas: Image.Image, original: Image.Image, mask: Mask, color: Color, line: float) -> None:
    """Replaces what is under the mask by the original image mixed with the colour."""
    cropped = _crop(mask, margin=2)
    if cropped is None:
        return
    shape, (left, top) = cropped
    area = (left, top, left + shape.width, top + shape.height)
    patch = Image.blend(original.crop(area), Image.new("RGB", shape.size, color), FILL)
    canvas.paste(patch, (left, top), shape.filter(ImageFilter.GaussianBlur(0.3 * line)))


def rim(canvas: Image.Image, mask: Mask, line: float) -> None:
    """A soft dark rim under the outline, and a little around it."""
    _stroke(canvas, mask, (0, 0, 0), line, _band(0.0, 2 * line, line, opacity=0.4))


def outline(canvas: Image.Image, mask: Mask, color: Color, line: float) -> None:
    """A smooth line of the given width along the mask's border, inside of it: masks that touch have two, and a gap."""
    _stroke(canvas, mask, color, line, _band(max(0.5, 0.3 * line) + line / 2, line, line, opacity=1.0))


def _stroke(canvas: Image.Image, mask: Mask, color: Color, line: float, band: list[int]) -> None:
    """Paints what the band of the mask's blurred edge takes up."""
    cropped = _crop(mask, margin=int(3 * line) + 1)
    if cropped is not None:
        shape, corner = cropped
        canvas.paste(color, corner, shape.filter(ImageFilter.GaussianBlur(line)).point(band))


@lru_cache(maxsize=64)  # all instances of an image have the same ones
def _band(inside: float, width: float, sigma: float, *, opacity: float) -> list[int]:
    """Opacity for each grey value of an edge blurred by ``sigma``: full within ``width`` around a line that lies
    ``inside`` of the edge.

    A blurred edge has the value of the normal distribution at the distance from it, so the value tells
    the distance, and the line gets borders that are smooth below the pixel.
    """
    distance = [abs(sigma * NormalDist().inv_cdf((value + 0.5) / 256) - inside) for value in range(256)]
    return [round(255 * opacity * min(max(width / 2 + 0.5 - d, 0.0), 1.0)) for d in distance]


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """For a Pillow size ``(w, h)``: ``(h, w)`` bool; encoded, where a large mask is made smaller."""
    if isinstance(mask, Mapping):
        rle, target = cast("Rle", mask), (size[1], size[0])
        height, width = rle["size"]
        if height * width > DECODED and height >= target[0] and width >= target[1]:
            return cast("Mask", Spans.of(rle).resized((height, width), target).rle(target))
    grey = Image.fromarray(np.where(_pixels(mask), np.uint8(255), np.uint8(0)))
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128


def _area(mask: Mask) -> float:
    return float(coco_mask.area(mask) if isinstance(mask, Mapping) else np.count_nonzero(_pixels(mask)))


def _crop(mask: Mask, *, margin: int) -> tuple[Image.Image, tuple[int, int]] | None:
    """The mask's surroundings as a grey image (0 or 255) and where its corner lies, or None for an empty mask."""
    if isinstance(mask, Mapping):
        height, width = mask["size"]  # type: ignore[misc]
        cut = cut_out(mask)
    else:
        pixels = _pixels(mask)
        height, width = pixels.shape
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        within = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else None
        cut = None if within is None else (within, int(rows[0]), int(columns[0]))
    if cut is None:
        return None
    inside, top, left = cut
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    corner = max(left - margin, 0), max(top - margin, 0)
    window = np.zeros((min(bottom + margin, height) - corner[1], min(right + margin, width) - corner[0]), np.uint8)
    window[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]] = np.where(inside, 255, 0)
    return Image.fromarray(window), corner


def _pixels(mask: Mask) -> NDArray[np.bool_]:
    """``(h, w)``, true where the mask is."""
    return _array(coco_mask.decode(dict(mask)) if isinstance(mask, Mapping) else mask, np.bool_)


def _array(values: Any, dtype: type[Scalar]) -> NDArray[Scalar]:
    """Of an array, lists, or a tensor on any device."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=dtype)
