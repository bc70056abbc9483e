"""What Pillow says of files that it cannot decode."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dsctool.errors import DataError

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that it cannot decode."""


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise for one of :data:`DECODE_ERRORS`, on one line."""
    if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
        return DataError(f"{path}: cannot be read: {error.strerror}")
    if isinstance(error, UnidentifiedImageError):
        empty = path.stat().st_size == 0
        reason = "the file is empty" if empty else "it is not an image of a known format"
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: cannot be decoded: {reason}")
