"""Words that all parts share, and that need no tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

Kind = Literal["bbox", "segm"]
"""What is measured: boxes or masks, as COCO calls them."""
KINDS: tuple[Kind, Kind] = ("bbox", "segm")
KIND_NAMES: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
"""In words."""

Role = Literal["train", "val"]
"""What a split of a data set is for."""

Precision = Literal["float32", "bfloat16", "float16"]
"""What matrix products and convolutions compute in."""

FusionRule = Literal["published", "detectron2", "mmdet"]
"""Whose way of making instances and stuff one map with a segment for every pixel."""
PixelRule = Literal["score", "probability"]
"""By what a pixel goes to one of several instances."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

MEDIUM_AREA, LARGE_AREA = 32.0**2, 96.0**2
"""COCO's limits between small, medium and large instances, in square pixels."""
