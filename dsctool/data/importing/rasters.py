"""Masks from rasters and rings, run-length encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from dsctool.data.decoding import decoding
from dsctool.data.importing.record import Polygon, usable
from dsctool.data.shapes import drawn
from dsctool.errors import DataError
from dsctool.rle import Rle, decompress_runs
from dsctool.terms import Size

Values = NDArray[np.int64]
_CORNERS = 64  # of a polygon for an ellipse


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A mask of one object ``(h, w)``: whatever is not 0, or, of a JPEG, which changes values, the brighter half.

    Raises:
        DataError: as :func:`read_values`.
    """
    values, lossy = _read(path)
    return values > 127 if lossy else values != 0


def read_values(path: Path) -> Values:
    """The values of a label image ``(h, w)``, as they are stored: indices of a palette, numbers of 8 to 32 bits.

    A picture in colours has red + 256 green + 65,536 blue; where the three are equal, that value.

    Raises:
        DataError: the file is missing or damaged, has several pages, fractions, or is a JPEG, which changes values.
    """
    values, lossy = _read(path)
    if lossy:
        raise DataError(f"{path}: is a JPEG, which changes values near borders: save masks as PNG or TIFF")
    return values


def _read(path: Path) -> tuple[Values, bool]:
    """Values, and whether the file is a JPEG."""
    with decoding(path):
        try:
            opened = Image.open(path)
        except UnidentifiedImageError:
            raise DataError(
                f"{path}: is not an image of a known format (64 bits aren't read: save masks with 8 to 32)"
            ) from None
        with opened as image:
            lossy = image.format == "JPEG"
            if getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{path}: has several pages; save each label image as a file of its own")
            pixels = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    if pixels.ndim == 3:
        red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
        grey = bool((red == green).all() and (green == blue).all())
        return red if grey else red + 256 * green + 65_536 * blue, lossy
    values = pixels.astype(np.int64)
    if pixels.dtype.kind == "f" and not np.array_equal(values, pixels):
        raise DataError(f"{path}: holds fractions; a label image has a whole number for each instance")
    return values, lossy


def label_rles(values: NDArray[Any], *, background: int = 0) -> dict[int, Rle]:
    """The mask of each value above ``background`` in ``(h, w)``, by value; in one pass, however many there are."""
    flat = np.asarray(values).ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], len(flat))
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] > background]
    edges = np.flatnonzero(np.diff(owners[order])) + 1
    found: dict[int, Rle] = {}
    for rows in np.split(order, edges) if len(order) else []:
        borders = np.stack([starts[rows], ends[rows]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], borders, [len(flat)] if borders[-1] < len(flat) else []])).astype(
            np.int64
        )
        found[int(owners[rows[0]])] = run_lengths(counts.tolist(), (values.shape[0], values.shape[1]))
    return found


def run_lengths(counts: Sequence[int], size: Size) -> Rle:
    """A mask from the lengths of its runs, background first, column by column; they fill the image."""
    rle: Rle = coco_mask.frPyObjects({"size": list(size), "counts": list(counts)}, *size)
    return rle


def bitmap_rle(bitmap: NDArray[Any]) -> Rle:
    """Of a mask ``(h, w)``, whatever is not 0."""
    rle: Rle = coco_mask.encode(np.asfortranarray(bitmap != 0, dtype=np.uint8))
    return rle


def window(rle: Rle) -> tuple[int, int, NDArray[np.uint8]]:
    """Left, top and pixels of the box around a mask, drawn without the rest of its image; the mask is not empty."""
    height = int(rle["size"][0])
    left, top, width, tall = (int(side) for side in coco_mask.toBbox(rle))
    if (runs := decompress_runs(rle["counts"])) is None:
        raise DataError("run lengths are not the compressed text that pycocotools writes")
    ends = np.cumsum(runs) - left * height
    columns = np.zeros(width * height, dtype=np.uint8)
    for start, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=False):
        columns[max(start, 0) : max(end, 0)] = 1
    return left, top, columns.reshape(width, height).T[top : top + tall]


def placed(bitmap: NDArray[Any], left: int, top: int, size: Size) -> NDArray[np.bool_]:
    """A small mask at its place in an image; what sticks out is cut off."""
    whole = np.zeros(size, dtype=bool)
    y, x = max(top, 0), max(left, 0)
    part = bitmap[y - top : max(size[0] - top, 0), x - left : max(size[1] - left, 0)]
    whole[y : y + part.shape[0], x : x + part.shape[1]] = part != 0
    return whole


def even_odd(rings: Sequence[Polygon], size: Size, where: str) -> Rle:
    """Rings drawn so that one within another is a hole, and one within that an island.

    Raises:
        DataError: a ring reaches far out of the image; ``where`` begins the message.
    """
    inside = np.zeros(size, dtype=np.uint8)
    for ring in usable(rings, size, where):
        inside ^= coco_mask.decode(drawn([ring], size))
    return bitmap_rle(inside)


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Its four corners."""
    return [left, top, right, top, right, bottom, left, bottom]


def turned(polygon: Polygon, degrees: float, about: tuple[float, float]) -> Polygon:
    """Turned clockwise as one sees it, y pointing down."""
    if not degrees:
        return polygon
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = np.asarray(polygon[::2]) - about[0], np.asarray(polygon[1::2]) - about[1]
    corners = np.stack([about[0] + x * cosine - y * sine, about[1] + x * sine + y * cosine], axis=1)
    return [float(value) for value in corners.ravel()]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Polygon:
    """A polygon of 64 corners with the ellipse's area."""
    angles = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    wider = math.sqrt(2 * math.pi / (_CORNERS * math.sin(2 * math.pi / _CORNERS)))
    corners = np.stack([x + radius_x * wider * np.cos(angles), y + radius_y * wider * np.sin(angles)], axis=1)
    return turned([float(value) for value in corners.ravel()], degrees, (x, y))
