"""A data set of two plain pictures, to be spoilt in one place at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsctool.data.layout import SplitFiles


def tiny_content() -> dict[str, Any]:
    """Two images (60 x 40 and 40 x 60), three annotations (polygon, RLE, crowd), category ids with gaps."""
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    runs = [0, 5, 35, 5, 40 * 60 - 45]  # the five upper pixels of the first two columns of a 40-high image
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
            {"id": 3, "file_name": "b.jpg", "width": 40, "height": 60},
        ],
        "annotations": [
            _annotation(11, 7, 90, [10, 10, 20, 20], [square], area=400),
            _annotation(12, 7, 5, [0, 0, 2, 5], {"size": [40, 60], "counts": runs}, area=10),
            _annotation(13, 3, 5, [10, 10, 20, 20], {"size": [60, 40], "counts": [0, 2400]}, area=400, crowd=1),
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 5, "name": "airplane"}],
    }


def write_tiny(root: Path, content: object | None = None) -> SplitFiles:
    """The set under ``root`` as split ``train``; ``content`` replaces the annotation file's."""
    files = SplitFiles(root / "annotations" / "instances_train.json", root / "train")
    files.annotations.parent.mkdir(parents=True)
    files.images.mkdir()
    files.annotations.write_text(json.dumps(tiny_content() if content is None else content))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(files.images / "a.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(files.images / "b.jpg")
    return files


def _annotation(
    id_: int, image_id: int, category_id: int, box: list[float], segmentation: object, *, area: float, crowd: int = 0
) -> dict[str, Any]:
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": crowd,
    }
