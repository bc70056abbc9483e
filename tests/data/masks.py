"""Single segmentations, drawn as the data set draws them."""

from __future__ import annotations

import torch
from torch import Tensor

from dsctool.data.records import Segmentation
from dsctool.data.shapes import Shapes, compressed
from dsctool.terms import Size


def decode_mask(segmentation: Segmentation, size: Size) -> Tensor:
    """``(h, w)`` uint8."""
    polygons = isinstance(segmentation, list)
    shapes = Shapes.of([segmentation if polygons else []], [b"" if polygons else compressed(segmentation, size)])
    return torch.from_numpy(shapes.bitmap(0, size).copy())
