"""From the values of an image file to the channels that a network takes, 0 to 255."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsctool.config.schema import DataConfig
from dsctool.errors import DataError

Values = NDArray[Any]
"""``(h, w, bands)``, of whatever type the file has."""
Bytes = NDArray[np.uint8]
Span = Literal["full", "minmax", "percentile"] | tuple[float, float]
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What becomes 0 and what becomes 255, of all channels or of each."""

PERCENTILES = (1.0, 99.8)
"""What ``data.image_range: percentile`` makes 0 and 255, as StarDist and CSBDeep do."""
NEARLY_BLACK = 32
"""A picture of more than 8 bits whose brightest byte is below this is told of."""
FEW_LIT = 1e-3
"""Share of pixels: a scale bar, or pixels of a camera that always shine, do not light a picture."""
VERY_DARK = 16
"""A picture of 8 bits whose brightest value is below this is told of."""
NODATA = 42113
"""The tag of a GeoTIFF file that holds the value of pixels without one, as text."""
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Channels:
    """How the values of a picture become a network's channels: ``data.channels``, ``image_range`` and ``page``.

    count: how many channels. bands: which they are, counted from 1; None: see :func:`chosen`.
    span: what becomes 0 and 255. page: the page of a file, counted from 1, or ``stack``; None is the first.
    """

    count: int = 3
    bands: tuple[int, ...] | None = None
    span: Span = "full"
    page: int | Literal["stack"] | None = None

    @classmethod
    def of(cls, data: DataConfig) -> Channels:
        """As a configuration says."""
        return cls(len(data.mean), data.channels, data.image_range, data.page)

    @property
    def plain(self) -> bool:
        """Whether it is 8-bit RGB by the rules of OpenCV's colour mode."""
        return self == RGB


RGB = Channels()


@dataclass(frozen=True)
class Raster:
    """What was decoded.

    values: upright. extra: how many bands, the last ones, are neither grey nor colours: alpha, and what comes with
    colours. spare: how many of these the file does not call alpha. pages: of the file, which were counted only if
    anybody asked.
    halved: 16-bit values of which only the high byte is here.
    """

    values: Values
    extra: int = 0
    pages: int = 1
    halved: bool = False
    spare: int = 0

    @property
    def deep(self) -> bool:
        """Whether a channel has more than 8 bits."""
        return self.halved or self.values.dtype != np.uint8


def chosen(raster: Raster, channels: Channels, name: str) -> Values:
    """The bands that become the channels, ``(h, w, channels.count)``.

    Without ``channels.bands``: all bands where there are as many as channels; else, without alpha and what else comes
    beside colours: grey three times, colours, the grey of colours, or grey.

    Raises:
        DataError: there are others than these.
    """
    values, count = raster.values, channels.count
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: has {_bands(values)}, which are no picture")
    found = values.shape[2]
    if channels.bands is not None:
        if max(channels.bands) > found:
            raise DataError(f"{name}: has {_bands(values)}, and data.channels asks for number {max(channels.bands)}")
        return values[:, :, [band - 1 for band in channels.bands]]
    if found == count:
        return values
    values = values[:, :, : found - raster.extra]
    colours = values.shape[2]
    if colours == count:
        return values
    if (colours, count) == (1, 3):
        return np.repeat(values, 3, axis=2)
    if (colours, count) == (3, 1):
        grey = values @ np.array(_GREY)
        return (grey if values.dtype.kind == "f" else np.rint(grey)).astype(values.dtype)[:, :, None]
    example = ", ".join(str(min(band, found)) for band in range(1, count + 1))
    taken = f"{count} channel{'s are' if count > 1 else ' is'} taken"
    raise DataError(
        f"{name}: has {_bands(raster.values)}, and {taken}: say which bands, "
        f"counted from 1, as in data.channels=[{example}], or take all of them by model.backbone.in_channels={found}"
    )


def to_bytes(values: Values, span: Span, name: str, ends: Ends | None = None) -> Bytes:
    """Values ``(h, w, c)`` from 0 to 255, by ``data.image_range``; NaN becomes 0.

    ends: of the whole picture, where these values are a part of it; see :func:`ends_of`.

    Raises:
        DataError: ``full`` says nothing of values of this type.
    """
    if span == "full":
        return _high_byte(values, name)
    low, high = ends or ends_of(values, span)
    width = np.where(high > low, high - low, np.inf)
    kind = np.promote_types(values.dtype, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values.astype(kind) - low.astype(kind)) * (255 / width).astype(kind)
    return np.nan_to_num(np.rint(scaled.clip(0, 255)), nan=0.0).astype(np.uint8)


def without_gaps(values: Values, nodata: object, span: Span) -> Values:
    """Values of which those that mean none, by GDAL's tag of a GeoTIFF file, are NaN, where the range makes them 0."""
    try:
        none = float(str(nodata).strip("\0 "))
    except ValueError:
        return values
    gaps = values == none
    if span == "full" or not gaps.any():
        return values
    filled = values.astype(np.promote_types(values.dtype, np.float32))
    filled[gaps] = np.nan
    return filled


def _high_byte(values: Values, name: str) -> Bytes:
    if values.dtype == np.uint8:
        return values
    whole = values.dtype.kind in "iu"
    if values.dtype == np.int8 and (not values.size or values.min() >= 0):
        return values.astype(np.uint8)
    if values.dtype == np.uint16 or (whole and (not values.size or (values.min() >= 0 and values.max() <= 0xFFFF))):
        return (values >> 8).astype(np.uint8)
    low, high = (f"{end:.0f}" if whole else f"{end:g}" for end in _finite_ends(values))
    raise DataError(
        f"{name}: holds {_kind(values)} values, from {low} to {high}. Say which become black and white: "
        f"data.image_range=[{low}, {high}], minmax or percentile"
    )


def ends_of(values: Values, span: Span) -> Ends:
    """What becomes 0 and 255 in each channel of a whole picture ``(h, w, c)``, by a span that is not ``full``."""
    if isinstance(span, tuple):
        return np.array(span[0]), np.array(span[1])
    ends = []
    for channel in np.moveaxis(values, 2, 0):
        known = channel[np.isfinite(channel)] if channel.dtype.kind == "f" else channel
        if not known.size:
            ends.append((0.0, 0.0))
        elif span == "minmax":
            ends.append((float(known.min()), float(known.max())))
        else:
            ends.append(tuple(np.percentile(known, PERCENTILES).tolist()))
    low, high = np.array(ends, dtype=np.float64).T
    return low, high


@dataclass(frozen=True)
class Extremes:
    """The lowest and the highest byte of a picture, and its highest value where that says more than the bytes do.

    lit: how many of its ``count`` bytes are not nearly black.
    """

    darkest: int = 255
    brightest: int = 0
    highest: int = 0
    lit: int = 0
    count: int = 0

    @classmethod
    def of(cls, values: Values, found: Bytes) -> Self:
        """Of the chosen ``values``, or a part of them, and the bytes ``found`` that they became."""
        whole = values.dtype.kind in "iu" and values.dtype != np.uint8
        highest = int(values.max(initial=0)) if whole else 0
        lit = int(np.count_nonzero(found >= NEARLY_BLACK))
        return cls(int(found.min(initial=255)), int(found.max(initial=0)), highest, lit, found.size)

    def with_part(self, other: Extremes) -> Extremes:
        """Of both."""
        return Extremes(
            min(self.darkest, other.darkest),
            max(self.brightest, other.brightest),
            max(self.highest, other.highest),
            self.lit + other.lit,
            self.count + other.count,
        )

    @property
    def unlit(self) -> bool:
        """Whether all but a few pixels are nearly black."""
        return self.lit < FEW_LIT * self.count or not self.lit


def remarks(raster: Raster, seen: Extremes, channels: Channels) -> tuple[str, ...]:
    """What people should know of a picture. raster: any part of it."""
    said = []
    if raster.pages > 1 and channels.page is None:
        said.append(
            f"has {raster.pages} pages, of which the first was taken: data.page=2 takes another, data.page=stack "
            "takes all as bands"
        )
    if raster.spare and channels.bands is None and channels.count in (1, 3):
        what = f"the last {raster.spare} are" if raster.spare > 1 else "the last is"
        said.append(
            f"has more bands than grey or colours: {what} left out, and the file does not call it alpha. data.channels "
            "says which are taken, counted from 1, and model.backbone.in_channels how many"
        )
    if isinstance(channels.span, tuple):
        said += _beside_the_range(seen, *channels.span)
    elif channels.span != "full":
        said += _stretched(seen)
    elif not raster.deep:
        said += _dark(seen)
    elif nearly_black(raster, seen, channels):
        said += _deep_and_dark(raster, seen)
    return tuple(said)


def _beside_the_range(seen: Extremes, low: float, high: float) -> Iterator[str]:
    if seen.brightest == 0:
        yield f"becomes black: no value lies above {low:g}, the low end of data.image_range"
    elif seen.darkest == 255:
        yield f"becomes white: no value lies below {high:g}, the high end of data.image_range"


def _stretched(seen: Extremes) -> Iterator[str]:
    if seen.brightest == 0:
        yield "becomes black: it has no two values that differ"
    elif seen.unlit:
        yield "becomes black or nearly so: a few values lie far above all others. Set data.image_range to percentile"


def _dark(seen: Extremes) -> Iterator[str]:
    if seen.brightest == 0:
        yield "is black: all its values are 0"
    elif seen.brightest < VERY_DARK:
        limit = 2 ** seen.brightest.bit_length()
        yield (
            f"is black or nearly so: its values are below {limit} of 256. Set data.image_range to percentile, minmax "
            f"or [0, {limit - 1}]"
        )


def _deep_and_dark(raster: Raster, seen: Extremes) -> Iterator[str]:
    highest = 256 * seen.brightest + 255 if raster.halved else seen.highest
    limit = 2 ** highest.bit_length()
    if not highest:
        yield "is black: all its values are 0"
    elif seen.lit:
        yield (
            "becomes black or nearly so: but for a few pixels, its 16-bit values are below "
            f"{256 * NEARLY_BLACK} of 65536. Set data.image_range to percentile"
        )
    else:
        yield (
            f"becomes black or nearly so: its 16-bit values are below {limit} of 65536. Set data.image_range to "
            f"percentile, minmax or [0, {limit - 1}]"
        )


def nearly_black(raster: Raster, seen: Extremes, channels: Channels) -> bool:
    """Whether nobody would see anything in a picture of more than 8 bits. raster: any part of it."""
    return channels.span == "full" and raster.deep and seen.unlit


def for_people(raster: Raster, values: Values, found: Bytes, channels: Channels) -> Tensor:
    """``(3, h, w)`` uint8 to look at, of the bytes ``found``; what would be nearly black is stretched."""
    if nearly_black(raster, Extremes.of(values, found), channels):
        found = to_bytes(values, "percentile", "")
    return rgb(as_tensor(found))


def rgb(pixels: Tensor) -> Tensor:
    """``(c, h, w)`` uint8 as ``(3, h, w)``: the first three channels; grey from one; magenta and green from two."""
    return pixels[{1: [0, 0, 0], 2: [0, 1, 0]}.get(len(pixels), [0, 1, 2])] if len(pixels) != 3 else pixels


def as_tensor(pixels: Bytes) -> Tensor:
    """``(h, w, c)`` as ``(c, h, w)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _finite_ends(values: Values) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def _bands(values: Values) -> str:
    count = values.shape[2]
    return f"{count} band{'s' * (count != 1)} of {_kind(values)} values"


def _kind(values: Values) -> str:
    bits = 8 * values.dtype.itemsize
    kinds = {"f": f"{bits}-bit floating-point", "i": f"signed {bits}-bit", "c": f"{bits}-bit complex"}
    return kinds.get(values.dtype.kind, f"{bits}-bit")
