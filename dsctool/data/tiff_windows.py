"""Parts of TIFF files by the tiles and strips that they are stored in, of whatever size the whole is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsctool.data.bands import NODATA, Channels, Raster
from dsctool.data.decoding import decoding
from dsctool.data.tiff import chosen_pages, extra_bands, full_pages, orientation_of, refuse_cut
from dsctool.ops.spans import Window
from dsctool.terms import Size

_ASSOCIATED = 1  # kind of an extra sample: colours are multiplied by it


def opened_tiff(path: Path, size: Size, channels: Channels) -> TiffPage | None:
    """The page of a file whose parts are what :func:`~dsctool.data.images.read_raster` gives of it.

    None where they would not be known to be, or cannot be had one by one: the file is no TIFF of a simple kind; what
    is 0 and 255 follows from the whole picture; ``tifffile`` is not installed, or cannot decode it.

    Raises:
        DataError: there is no such page, or the file ends early.
    """
    if path.suffix.lower() not in (".tif", ".tiff") or channels.page == "stack":
        return None
    if channels.span in ("minmax", "percentile"):
        return None
    try:
        import tifffile
    except ImportError:
        return None
    try:
        file = tifffile.TiffFile(path)
    except tifffile.TiffFileError:
        return None
    try:
        pages = full_pages(file)
        page = pages[chosen_pages(len(pages), channels, path)[0]]
        extra = _extra(page, channels)
        simple = (
            extra is not None
            and page.imagedepth == 1
            and page.dtype in (np.uint8, np.uint16)
            and page.bitspersample == 8 * page.dtype.itemsize
            and (page.samplesperpixel == 1 or page.planarconfig == tifffile.PLANARCONFIG.CONTIG)
            and (channels.span == "full" or page.tags.get(NODATA) is None)
            and orientation_of(page) == 1
            and (page.imagelength, page.imagewidth) == size
        )
        if simple:
            refuse_cut(page, path, file.filehandle.size)
            tiff = TiffPage(file, page, path, extra=extra or 0, pages=len(pages))
            if tiff.decodable():
                return tiff
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _extra(page: Any, channels: Channels) -> int | None:
    """How many of the bands are neither grey nor colours, as a reading of the whole has it; None: it may read others.

    Pillow reads up to four bands of 8 bits; see ``_beyond_pillow`` of :mod:`dsctool.data.images`.
    """
    count, kinds = page.samplesperpixel, tuple(page.extrasamples or ())
    grey, colours = page.photometric == 1, page.photometric == 2
    if not (grey or colours):
        return None
    if (grey and count == 1) or (colours and count == 3):
        return 0
    if colours and count == 4 and (channels.plain or page.dtype == np.uint8):
        return None if _ASSOCIATED in kinds else 1
    if channels.plain or (count <= 4 and page.dtype == np.uint8):
        return None
    return extra_bands(page)


class TiffPage:
    """A page of a TIFF file that is read by windows. size: ``(h, w)``."""

    def __init__(self, file: Any, page: Any, path: Path, *, extra: int, pages: int) -> None:
        self.size: Size = (page.imagelength, page.imagewidth)
        self._path, self._file, self._page = path, file, page
        self._tables = page.jpegtables
        self._extra, self._pages = extra, pages

    def __enter__(self) -> TiffPage:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()

    def decodable(self) -> bool:
        """Whether the first segment can be decoded; it may take a library that is not there."""
        try:
            self._segment(0)
        except (ValueError, RuntimeError, ImportError):
            return False
        return True

    def part(self, window: Window) -> Raster:
        """Of all segments that meet it."""
        page = self._page
        height = page.tilelength if page.is_tiled else page.rowsperstrip
        width = page.tilewidth if page.is_tiled else page.imagewidth
        across = -(-page.imagewidth // width)
        pixels = np.zeros((*window.size, page.samplesperpixel), dtype=page.dtype)
        for row in range(window.y1 // height, -(-window.y2 // height)):
            for column in range(window.x1 // width, -(-window.x2 // width)):
                with decoding(self._path):
                    segment = self._segment(row * across + column)
                top, left = row * height, column * width
                stored = Window(left, top, left + segment.shape[1], top + segment.shape[0])
                part = stored.shared(window)
                inside = segment[part.y1 - top : part.y2 - top, part.x1 - left : part.x2 - left]
                pixels[part.y1 - window.y1 : part.y2 - window.y1, part.x1 - window.x1 : part.x2 - window.x1] = inside
        return Raster(pixels, extra=self._extra, pages=self._pages)

    def _segment(self, number: int) -> NDArray[Any]:
        """``(h, w, samples)``."""
        page, handle = self._page, self._file.filehandle
        handle.seek(page.dataoffsets[number])
        data = handle.read(page.databytecounts[number])
        segment, _, shape = page.decode(data, number, jpegtables=self._tables)
        if segment is None:  # a hole in a sparse file
            return np.full((*shape[1:3], page.samplesperpixel), page.nodata, dtype=page.dtype)
        decoded: NDArray[Any] = segment[0]
        return decoded
