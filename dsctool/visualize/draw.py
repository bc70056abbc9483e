"""Instances drawn over their image: tinted masks, outlines, names with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeVar, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

from dsctool.terms import Size
from dsctool.visualize.colors import Color, assign_colors
from dsctool.visualize.labels import Tag, draw_tags

if TYPE_CHECKING:  # results files are drawn without it
    from torch import Tensor

Scalar = TypeVar("Scalar", bound=np.generic)

FILL = 0.45
"""Share of an instance's colour in its mask; the rest is the image."""

Mask = Union[Mapping[str, object], NDArray[np.bool_], "Tensor"]
"""COCO RLE, or ``(h, w)`` bool."""
Corners = Union["Tensor", NDArray[np.floating], Sequence[Sequence[float]]]
"""Boxes ``(n, 4)``, xyxy in pixels."""


def draw_instances(
    image: Image.Image | Tensor,
    *,
    boxes: Corners,
    names: Sequence[str],
    scores: Sequence[float] | NDArray[np.floating] | Tensor | None = None,
    masks: Sequence[Mask] | Tensor | None = None,
    size: Size | None = None,
) -> Image.Image:
    """The image with its instances on it, at the image's size.

    image: Pillow image, or ``(3, h, w)`` uint8 RGB. names: one per instance. size: ``(h, w)`` that boxes and masks are
    in, where the image has been brought to another one. Without masks the boxes are drawn. Large instances are painted
    first, so that small ones stay visible; a pixel shows the tint of the topmost instance only, outlines are drawn
    over all tints, and names over everything.
    """
    original = pillow(image)
    corners = _array(boxes, np.float64).reshape(-1, 4)
    if size is not None:
        corners = corners * (2 * (original.width / size[1], original.height / size[0]))
        masks = None if masks is None else [_resized(mask, original.size) for mask in masks]
    colors = assign_colors(corners)
    canvas = original.copy()
    line = max(1.5, min(original.size) / 300)
    if masks is None:
        _draw_boxes(canvas, corners, colors, line)
    else:
        _draw_masks(canvas, original, masks, colors, line)
    tags = []
    for index, (name, (x1, y1, x2, y2), color) in enumerate(zip(names, corners.tolist(), colors, strict=True)):
        text = name if scores is None else f"{name} {float(scores[index]):.2f}"
        tags.append(Tag(text, (x1, y1, x2, y2), color))
    draw_tags(canvas, tags, font_size=max(10, round(min(original.size) / (36 if len(names) < 20 else 42))))
    return canvas


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
    """Tints, then outlines. One mask at a time is decoded, twice, so that memory stays one mask's."""
    order = np.argsort([-_area(mask) for mask in masks], kind="stable")
    for index in order:
        tint(canvas, original, masks[index], colors[index], line)
    for index in order:
        outline(canvas, masks[index], colors[index], line)


def tint(canvas: Image.Image, original: Image.Image, mask: Mask, color: Color, line: float) -> None:
    """Replaces what is under the mask by the original image mixed with the colour."""
    cropped = _crop(mask, margin=2)
    if cropped is None:
        return
    shape, (left, top) = cropped
    area = (left, top, left + shape.width, top + shape.height)
    patch = Image.blend(original.crop(area), Image.new("RGB", shape.size, color), FILL)
    canvas.paste(patch, (left, top), shape.filter(ImageFilter.GaussianBlur(0.3 * line)))


def outline(canvas: Image.Image, mask: Mask, color: Color, line: float) -> None:
    """A smooth line of the given width along the mask's border, on a soft dark rim."""
    cropped = _crop(mask, margin=int(3 * line) + 1)
    if cropped is None:
        return
    shape, corner = cropped
    blurred = shape.filter(ImageFilter.GaussianBlur(line))
    canvas.paste((0, 0, 0), corner, blurred.point(_band(2 * line, line, opacity=0.4)))
    canvas.paste(color, corner, blurred.point(_band(line, line, opacity=1.0)))


@lru_cache(maxsize=64)  # all instances of an image have the same ones
def _band(width: float, sigma: float, *, opacity: float) -> list[int]:
    """Opacity for each grey value of an edge blurred by ``sigma``: full within ``width`` around the edge.

    A blurred edge has the value of the normal distribution at the distance from it, so the value tells
    the distance, and the line gets borders that are smooth below the pixel.
    """
    distance = [abs(sigma * NormalDist().inv_cdf((value + 0.5) / 256)) for value in range(256)]
    return [round(255 * opacity * min(max(width / 2 + 0.5 - d, 0.0), 1.0)) for d in distance]


def _resized(mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``(h, w)`` bool for a Pillow size ``(w, h)``."""
    grey = Image.fromarray(np.where(_pixels(mask), np.uint8(255), np.uint8(0)))
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128


def _area(mask: Mask) -> float:
    return float(coco_mask.area(mask) if isinstance(mask, Mapping) else np.count_nonzero(_pixels(mask)))


def _crop(mask: Mask, *, margin: int) -> tuple[Image.Image, tuple[int, int]] | None:
    """The mask's surroundings as a grey image (0 or 255) and where its corner lies, or None for an empty mask."""
    pixels = _pixels(mask)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if len(rows) == 0:
        return None
    top, left = int(max(rows[0] - margin, 0)), int(max(columns[0] - margin, 0))
    window = pixels[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    return Image.fromarray(np.where(window, np.uint8(255), np.uint8(0))), (left, top)


def _pixels(mask: Mask) -> NDArray[np.bool_]:
    """``(h, w)``, true where the mask is."""
    return _array(coco_mask.decode(dict(mask)) if isinstance(mask, Mapping) else mask, np.bool_)


def _array(values: Any, dtype: type[Scalar]) -> NDArray[Scalar]:
    """Of an array, lists, or a tensor on any device."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=dtype)
