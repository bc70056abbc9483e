"""Semantic supervision: a class for every pixel."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dsctool.data.decoding import decoding
from dsctool.data.records import ImageInfo
from dsctool.errors import DataError

SEMANTIC_STRIDE = 8
"""Pixels per cell of a semantic map, in both directions."""
SEMANTIC_IGNORED = 255
"""Cells of a semantic map that no loss looks at."""


def draw_semantic_map(masks: Tensor, labels: Tensor, crowds: Tensor, *, areas: Tensor, background: int) -> Tensor:
    """A map from instance masks: the smaller instance is drawn over the larger, crowd regions are ignored.

    masks: ``(G, h, w)`` uint8. labels, areas: ``(G,)``. crowds: ``(c, h, w)`` uint8. Returns ``(h, w)`` uint8.
    """
    semantic = torch.full(masks.shape[-2:], background, dtype=torch.uint8)
    for crowd in crowds:
        semantic[crowd.bool()] = SEMANTIC_IGNORED
    for index in areas.argsort(descending=True, stable=True).tolist():
        semantic[masks[index].bool()] = int(labels[index])
    return semantic


def semantic_map_path(folder: Path, info: ImageInfo) -> Path:
    """The PNG that belongs to an image: its name with another suffix."""
    return folder / PurePosixPath(info.file_name).with_suffix(".png")


def read_semantic_map(folder: Path, info: ImageInfo, *, classes: int) -> Tensor:
    """A stuff-and-thing map as its file has it: ``(h, w)`` uint8, values below ``classes``, or 255 = ignored.

    Raises:
        DataError: the file is missing, broken, of another size, not a map of one value a pixel, or names other classes.
    """
    path = semantic_map_path(folder, info)
    with decoding(path), Image.open(path) as image:
        image.load()
        if image.mode not in ("L", "P"):
            raise DataError(f"{path}: a semantic map has one 8-bit value a pixel, this is {image.mode}")
        values = np.array(image)
    if values.shape != (info.height, info.width):
        height, width = values.shape
        raise DataError(
            f"{path}: is {width} x {height} pixels, its image is {info.width} x {info.height} (width x height)"
        )
    _check_values(values, classes, path)
    return torch.from_numpy(values)


def _check_values(values: NDArray[np.uint8], classes: int, path: Path) -> None:
    unknown = np.unique(values[(values >= classes) & (values != SEMANTIC_IGNORED)])
    if len(unknown):
        raise DataError(
            f"{path}: holds the value {unknown[0]}; classes go from 0 to {classes - 1}, "
            f"and {SEMANTIC_IGNORED} is where nothing is labelled"
        )
