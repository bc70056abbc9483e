"""One image with rows of a table on it, for pages that set panels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dsctool.data.records import ImageInfo
from dsctool.errors import DataError
from dsctool.evaluation.tables import DetectionTable, Floats, Ints, TruthTable
from dsctool.terms import Size
from dsctool.visualize.draw import draw_instances

LONGEST = 640
"""Pixels of a picture's longer side, unless the image is very small."""
_LARGEST_SCALE = 4.0
_PLAIN = (52, 58, 64)  # where the image itself is not at hand


@dataclass(frozen=True)
class Shapes:
    """What a panel shows: rows of a table. precision: of the results in this image."""

    role: str
    table: TruthTable | DetectionTable
    rows: Ints
    precision: float | None = None

    @property
    def boxes(self) -> Floats:
        """``(n, 4)``, xyxy."""
        boxes = self.table.boxes[self.rows]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def true_shapes(table: TruthTable, row: int) -> Shapes:
    """The annotations of image number ``row`` that are no crowds."""
    return Shapes("Ground truth", table, np.flatnonzero((table.image == row) & ~table.crowd))


def found_shapes(
    role: str, table: DetectionTable, row: int, *, score_threshold: float, precision: float | None = None
) -> Shapes:
    """The results in image number ``row`` that score at least ``score_threshold``."""
    return Shapes(role, table, np.flatnonzero((table.image == row) & (table.score >= score_threshold)), precision)


def size_of(info: ImageInfo, boxes: Floats) -> Size:
    """``(h, w)`` of the image, or of what its boxes ``(n, 4)`` cover where the file does not say."""
    if info.height and info.width:
        return info.height, info.width
    right, bottom = np.rint(boxes[:, 2:].max(axis=0, initial=1.0)).astype(int).tolist()
    return bottom, right


def ground_for(info: ImageInfo, folder: Path | None, size: Size) -> Image.Image:
    """The image at the size of a panel, or a plain ground. Small images grow, so that lines and names are sharp."""
    scale = min(LONGEST / max(size), _LARGEST_SCALE)
    target = max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
    if folder is not None and info.file_name:
        from dsctool.data.file_names import image_path
        from dsctool.data.images import shown_image  # and with it torch: two seconds, for who has images

        try:
            pixels = shown_image(image_path(folder, info.file_name), size)
        except DataError:
            return Image.new("RGB", target, _PLAIN)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(target, Image.Resampling.LANCZOS)
    return Image.new("RGB", target, _PLAIN)


def draw_shapes(ground: Image.Image, shapes: Shapes, names: Sequence[str], size: Size) -> Image.Image:
    """names: of the categories, by index. size: ``(h, w)`` that the shapes are in."""
    table, rows = shapes.table, shapes.rows
    return draw_instances(
        ground,
        boxes=shapes.boxes,
        names=[names[index] for index in table.category[rows]],
        scores=table.score[rows] if isinstance(table, DetectionTable) else None,
        masks=None if table.masks is None else [table.masks[row] for row in rows],
        size=size,
    )
