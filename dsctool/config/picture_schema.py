"""The ``data`` section's words for how the values of an image file become the network's channels."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

Stretch = Literal["full", "minmax", "percentile"]
_STRETCHES = ("full", "minmax", "percentile")


def _is_range(value: object) -> object:
    if isinstance(value, str) and value in _STRETCHES:
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(end) in (int, float) for end in value):
        low, high = value
        if -inf < low < high < inf:
            return float(low), float(high)
    raise PydanticCustomError("range", "must be full, minmax, percentile, or [low, high] with low below high")


def _is_page(value: object) -> object:
    if value is None or value == "stack" or (type(value) is int and value > 0):
        return value
    raise PydanticCustomError("page", "must be the number of a page, from 1 on, or stack, or null")


ImageRange = Annotated[Stretch | tuple[float, float], BeforeValidator(_is_range)]
"""What becomes 0 and 255."""
Page = Annotated[int | Literal["stack"] | None, BeforeValidator(_is_page)]
"""Of a file with several."""
