"""Reading parts of images, which may be of any size.

TIFF files are read by the tiles and strips that they are stored in where ``tifffile`` is installed (``pip install
'dsctool[tiff]'``) and knows their compression. Other files are decoded whole, once, and so are all where
``data.image_range`` takes what is 0 and 255 from the picture: their values stay in memory in the file's own type, three
bytes a pixel for 8-bit RGB. Pixels are those of :func:`dsctool.data.images.read_image` either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dsctool.data.bands import (
    RGB,
    Channels,
    Ends,
    Extremes,
    Raster,
    as_tensor,
    chosen,
    ends_of,
    nearly_black,
    remarks,
    rgb,
    to_bytes,
)
from dsctool.data.decoding import any_size, decoding
from dsctool.data.images import Decoded, image_size, read_raster
from dsctool.data.tiff_windows import opened_tiff
from dsctool.errors import DataError
from dsctool.ops.spans import Window
from dsctool.terms import Size

LARGEST = 1 << 31
"""Pixels; COCO's run-length encoding counts no further."""


class Part(NamedTuple):
    """What a window shows. pixels: ``(c, h, w)`` uint8, a network's channels. shown: ``(3, h, w)`` uint8 RGB."""

    pixels: Tensor
    shown: Tensor


class Windows(Protocol):
    """An image that is read by windows. size: ``(h, w)``."""

    size: Size

    def read(self, window: Window) -> Part:
        """What is there."""


class InMemory:
    """An image that is at hand."""

    def __init__(self, image: Decoded) -> None:
        self._image = image
        self.size: Size = (image.pixels.shape[-2], image.pixels.shape[-1])

    def read(self, window: Window) -> Part:
        """Views of it."""
        image, rows, columns = self._image, slice(window.y1, window.y2), slice(window.x1, window.x2)
        return Part(image.pixels[:, rows, columns], image.shown[:, rows, columns])


class _Source(Protocol):
    """Where the values of an image come from. size: ``(h, w)``."""

    size: Size

    def part(self, window: Window) -> Raster: ...


class FileWindows:
    """An image file that is read by windows.

    ends: what becomes 0 and 255 in the whole picture, where ``channels`` takes it from there.
    """

    def __init__(self, source: _Source, channels: Channels, name: str, ends: Ends | None = None) -> None:
        self.size = source.size
        self._source, self._channels, self._name, self._ends = source, channels, name, ends
        self._raster = Raster(np.zeros((0, 0, 1), dtype=np.uint8))
        self._seen = Extremes()

    def read(self, window: Window) -> Part:
        """What is there; may raise what a reading of the whole does."""
        raster = self._source.part(window)
        values = chosen(raster, self._channels, self._name)
        found = to_bytes(values, self._channels.span, self._name, self._ends)
        self._raster, self._seen = replace(raster, values=values[:0]), self._seen.with_part(Extremes.of(values, found))
        pixels = as_tensor(found)
        return Part(pixels, rgb(pixels))

    def remarks(self) -> tuple[str, ...]:
        """What people should know of the picture, when all of it has been read."""
        return remarks(self._raster, self._seen, self._channels)

    def for_people(self, shown: Tensor) -> Tensor:
        """``(3, h, w)`` uint8, what windows showed; stretched where nobody would see anything."""
        if not nearly_black(self._raster, self._seen, self._channels):
            return shown
        return as_tensor(to_bytes(shown.permute(1, 2, 0).numpy(), "percentile", ""))


@contextmanager
def open_windows(path: Path, size: Size | None = None, channels: Channels = RGB) -> Iterator[FileWindows]:
    """An image file to be read by windows while the block runs; arguments as for
    :func:`~dsctool.data.images.read_image`.

    Raises:
        DataError: as for :func:`~dsctool.data.images.read_image`, also where a part is read; or the image has more
            pixels than results can count.
    """
    height, width = image_size(path, size)
    if height * width >= LARGEST:
        raise DataError(f"{path}: {width} x {height} are {height * width} pixels; at most {LARGEST - 1} can be counted")
    with decoding(path):
        tiff = opened_tiff(path, (height, width), channels)
    if tiff is not None:
        with tiff:
            yield FileWindows(tiff, channels, str(path))
        return
    with decoding(path), any_size():
        raster = read_raster(path, size, channels, count_pages=True)
        whole = _opened(raster, channels, str(path))
    yield whole


def read_window(path: Path, window: Window, size: Size, channels: Channels = RGB) -> Tensor:
    """A part of an image of ``size`` ``(h, w)`` as ``(c, h, w)`` uint8; errors as for :func:`open_windows`."""
    with open_windows(path, size, channels) as windows:
        return windows.read(window).pixels


def _opened(raster: Raster, channels: Channels, name: str) -> FileWindows:
    """Of a whole picture, of which everything that can be wrong is found now."""
    values = chosen(raster, channels, name)
    if channels.span != "full":
        return FileWindows(_Whole(raster), channels, name, ends_of(values, channels.span))
    if values.dtype not in (np.uint8, np.uint16):
        to_bytes(values, "full", name)
    return FileWindows(_Whole(raster), channels, name)


class _Whole:
    """Decoded values."""

    def __init__(self, raster: Raster) -> None:
        self._raster = raster
        self.size: Size = (raster.values.shape[0], raster.values.shape[1])

    def part(self, window: Window) -> Raster:
        return replace(self._raster, values=self._raster.values[window.y1 : window.y2, window.x1 : window.x2])


# --- to look at ---------------------------------------------------------------------------------

PREVIEW_SIDE = 4096
"""Longest side of what is kept of an image to be drawn on, in pixels."""


class Preview:
    """An image made smaller by a whole number, from its windows. pixels: ``(3, h, w)`` uint8 RGB."""

    def __init__(self, size: Size, *, longest: int = PREVIEW_SIDE) -> None:
        self._factor = -(-max(size) // longest)
        height, width = (max(1, side // self._factor) for side in size)
        self.pixels = torch.zeros((3, height, width), dtype=torch.uint8)

    def add(self, window: Window, pixels: Tensor) -> None:
        """What a window shows, ``(3, h, w)``."""
        k, (_, height, width) = self._factor, self.pixels.shape
        left, top = -(-window.x1 // k), -(-window.y1 // k)
        right, bottom = min(window.x2 // k, width), min(window.y2 // k, height)
        if right <= left or bottom <= top:
            return
        part = pixels[:, top * k - window.y1 : bottom * k - window.y1, left * k - window.x1 : right * k - window.x1]
        if k > 1:
            part = avg_pool2d(part.float(), k).round().to(torch.uint8)
        self.pixels[:, top:bottom, left:right] = part
