"""What decoders say of files that they cannot decode, and where they say it: in an error, and nowhere else."""

from __future__ import annotations

import ctypes
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError, _imaging

from dsctool.errors import DataError, DsctoolError

for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # whoever sets up logging still gets what they log


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """While a file is decoded: whatever goes wrong becomes one DataError that names it.

    Raises:
        DataError: the file is missing, or its decoder fails, in whatever way.
    """
    _quiet_libtiff()
    try:
        if path.is_fifo():  # to which nobody may ever write
            raise DataError(f"{path}: is no file, but a pipe")
        yield
    except DsctoolError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # decoders meet damage with any exception there is
        raise unreadable(path, error) from None


class _Limit:
    """Pillow's limit of pixels, which is one for all threads. lifted: by how many of them."""

    lock = Lock()
    lifted = 0
    pixels = Image.MAX_IMAGE_PIXELS


@contextmanager
def any_size(allowed: bool = True) -> Iterator[None]:
    """Images of any size may be opened in the block, where it is allowed: Pillow takes large ones for attacks."""
    if not allowed:
        yield
        return
    with _Limit.lock:
        if not _Limit.lifted:
            _Limit.pixels = Image.MAX_IMAGE_PIXELS
        _Limit.lifted += 1
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.lifted -= 1
            if not _Limit.lifted:
                Image.MAX_IMAGE_PIXELS = _Limit.pixels


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise where a decoder raised ``error``, on one line."""
    if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
        return DataError(f"{path}: cannot be read: {error.strerror}")
    if isinstance(error, Image.DecompressionBombError):
        return DataError(
            f"{path}: is larger than Pillow opens by itself ({2 * (_Limit.pixels or 0):,} pixels): "
            "--tiles 1024 (data.tiles.size=1024) reads it by windows"
        )
    if isinstance(error, UnidentifiedImageError):
        reason = _kind_of(path)
    elif isinstance(error, MemoryError):
        reason = "it takes more memory than there is"
    else:
        reason = " ".join(str(error).split())
        if reason.startswith("decoder error"):
            reason = "its data are damaged, or packed in a way that Pillow does not read"
        if not reason or not isinstance(error, OSError | SyntaxError | ValueError):  # others mean little by themselves
            reason = f"{type(error).__name__} {reason}".strip()
    return DataError(f"{path}: cannot be decoded: {reason}")


_OTHERS: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"), "a HEIC picture: convert it to JPEG or PNG"),
    (4, (b"ftyp",), "a video: take its pictures out, as with ffmpeg"),
    (0, (b"\x1a\x45\xdf\xa3",), "a video: take its pictures out, as with ffmpeg"),
    (0, (b"version https://git-lfs",), "a pointer of Git LFS, not the file: git lfs pull brings it"),
    (0, (b"<?xml", b"<svg", b"<html", b"<!DOCTYPE", b"<!doctype", b"{"), "text, not a picture"),
    (0, (b"%PDF",), "a PDF file"),
    (0, (b"\x93NUMPY",), "an array of NumPy: save it as TIFF or PNG"),
    (0, (b"PK\x03\x04", b"\x1f\x8b"), "packed: unpack it"),
)
"""What stands at a place of files that are taken for pictures, and what these are."""


def _kind_of(path: Path) -> str:
    """Of a file that no decoder knows."""
    begin = b""
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(32)
        if not begin:
            return "the file is empty"
    for place, signs, kind in _OTHERS:
        if begin[place:].startswith(signs):
            return f"it is {kind}"
    return "it is not an image of a known format"


@cache
def _quiet_libtiff() -> None:
    """libtiff, which Pillow brings, writes its errors to the standard error beside returning them; Pillow's warnings
    about odd files name none.

    Where libtiff is linked in another way, it goes on writing.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for setter in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
            getattr(library, setter)(None)
    except (OSError, AttributeError, TypeError):
        return


def image_suffixes() -> frozenset[str]:
    """Of the files that can be decoded, in lower case; some formats are only recognised."""
    stubs = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in known if kind in Image.OPEN and kind not in stubs)
