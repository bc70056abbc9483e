"""TIFF files that Pillow does not read: many bands, several bands of more than 8 bits. Needs tifffile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsctool.data.bands import NODATA, Channels, Raster, Values, without_gaps
from dsctool.data.orientation import chosen_size, upright
from dsctool.errors import DataError
from dsctool.terms import Size

if TYPE_CHECKING:
    from types import ModuleType

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 274
_MIN_IS_WHITE, _RGB = 0, 2
_ALPHA = (1, 2)  # kinds of extra samples


def is_tiff(path: Path) -> bool:
    """Whether the file begins as one."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def read_tiff(path: Path, size: Size | None, channels: Channels) -> Raster:
    """The page that is wanted, or all.

    Raises:
        DataError: tifffile is missing, there is no such page, or the file ends early or has another size.
    """
    with _tifffile(path).TiffFile(path) as file:
        pages = full_pages(file)
        wanted = chosen_pages(len(pages), channels, path)
        parts = [_values(pages[number], size, path, file.filehandle.size) for number in wanted]
        values = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
        if (nodata := pages[0].tags.get(NODATA)) is not None:
            values = without_gaps(values, nodata.value, channels.span)
        extra = extra_bands(pages[0]) if len(parts) == 1 else 0
        spare = extra - sum(kind in _ALPHA for kind in pages[0].extrasamples or ()) if extra else 0
        return Raster(values, extra=extra, pages=len(pages), spare=spare)


def tiff_size(path: Path, size: Size | None) -> Size:
    """``(h, w)`` of what :func:`read_tiff` gives, from the header alone."""
    with _tifffile(path).TiffFile(path) as file:
        page = full_pages(file)[0]
        return chosen_size((page.imagelength, page.imagewidth), orientation_of(page), size, path)[0]


def chosen_pages(count: int, channels: Channels, path: Path) -> list[int]:
    """Which of a file's ``count`` pages, from 0.

    Raises:
        DataError: there is no such page.
    """
    if channels.page == "stack":
        return list(range(count))
    number = channels.page or 1
    if number > count:
        raise DataError(f"{path}: has {count} page{'s' * (count > 1)}, and data.page is {number}")
    return [number - 1]


def full_pages(file: Any) -> list[Any]:
    """Those of full size: smaller copies and masks of a page are none."""
    first = file.pages.first
    size = (first.imagelength, first.imagewidth)
    pages = [page.aspage() if hasattr(page, "aspage") else page for page in file.pages]
    return [
        page
        for page in pages
        if (page.imagelength, page.imagewidth) == size and not (int(page.subfiletype) & 5 and page is not first)
    ]


def extra_bands(page: Any) -> int:
    """Bands beside colours, or an alpha beside grey."""
    kinds = tuple(page.extrasamples or ())
    return len(kinds) if page.photometric == _RGB else sum(kind in _ALPHA for kind in kinds[-1:])


def refuse_cut(page: Any, path: Path, length: int) -> None:
    """Raise DataError where a page goes on behind the ``length`` bytes of its file."""
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > length:
        raise DataError(f"{path}: cannot be decoded: the file ends early")


def _values(page: Any, size: Size | None, path: Path, length: int) -> Values:
    refuse_cut(page, path, length)
    try:
        stored = np.asarray(page.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise DataError(
            f"{path}: is compressed in a way that takes imagecodecs to read: pip install 'dsctool[tiff]'"
        ) from None
    axes = page.axes
    if stored.ndim != len(axes) or set(axes) - set("YXS") or not {"Y", "X"} <= set(axes):
        raise DataError(f"{path}: cannot be decoded: its axes are {axes}, not height, width and bands")
    if "S" not in axes:
        stored, axes = stored[..., None], f"{axes}S"
    values = stored.transpose([axes.index(axis) for axis in "YXS"])
    if page.photometric == _MIN_IS_WHITE and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    orientation = orientation_of(page)
    _, turn = chosen_size((values.shape[0], values.shape[1]), orientation, size, path)
    values = upright(values, orientation) if turn else values
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def orientation_of(page: Any) -> int:
    """The EXIF one, 1 where none is stated."""
    tag = page.tags.get(_ORIENTATION)
    return tag.value if tag is not None and isinstance(tag.value, int) else 1


def _tifffile(path: Path) -> ModuleType:
    try:
        import tifffile
    except ImportError:
        raise DataError(
            f"{path}: a TIFF file of a kind that needs tifffile (several bands of more than 8 bits, or many bands): "
            "pip install 'dsctool[tiff]'"
        ) from None
    return tifffile
