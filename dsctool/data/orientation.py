"""EXIF orientation: how a picture is turned from how it is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsctool.errors import DataError
from dsctool.terms import Size

_Turn = Callable[[NDArray[Any]], NDArray[Any]]
_UPRIGHT: dict[int, _Turn] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
_SIDEWAYS = (5, 6, 7, 8)  # those that swap width and height
_BACK = {6: 8, 8: 6}  # the others undo themselves


def upright(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A stored picture ``(h, w, ...)`` turned as its orientation says."""
    return _UPRIGHT[orientation](stored) if orientation in _UPRIGHT else stored


def as_stored(turned: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The picture as it was before :func:`upright`."""
    return upright(turned, _BACK.get(orientation, orientation))


def turned_size(stored: Size, orientation: int) -> Size:
    """``(h, w)`` of the picture when it is upright."""
    return stored[::-1] if orientation in _SIDEWAYS else stored


def chosen_size(stored: Size, orientation: int, size: Size | None, path: Path) -> tuple[Size, bool]:
    """The size ``(h, w)`` to use, and whether the orientation is applied to get it.

    size: that the annotations mean; None takes the upright one.

    Raises:
        DataError: neither the stored nor the upright picture has it.
    """
    turned = turned_size(stored, orientation)
    if size is None or turned == size:
        return turned, True
    if stored == size:
        return stored, False
    raise DataError(
        f"{path}: is {turned[1]} x {turned[0]} pixels, the annotation says {size[1]} x {size[0]} (width x height)"
    )
