"""A data set of many small squares, in two splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEP = 6
"""Pixels from one square to the next; each has four."""


def write_crowded(root: Path, *, train: int, val: int, images: int = 2, columns: int = 20) -> Path:
    """``train`` and ``val`` squares of two classes in each of the images of a split, and a crowd region."""
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir()
        entries = [_annotation(image, number, columns) for image in range(images) for number in range(count)]
        crowds = [{**_annotation(image, 0, columns), "iscrowd": 1} for image in range(images)]
        side = columns * STEP
        content = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": side, "height": side} for i in range(images)],
            "annotations": [{**entry, "id": i} for i, entry in enumerate([*entries, *crowds], start=1)],
            "categories": [{"id": 3, "name": "cell"}, {"id": 8, "name": "seed"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in range(images):
            pixels = np.random.default_rng(image).integers(0, 60, (side, side, 3), dtype=np.uint8)
            for number in range(count):
                x, y = _corner(number, columns)
                pixels[y : y + 4, x : x + 4, number % 2] = 230
            Image.fromarray(pixels).save(root / split / f"{image}.png")
    return root


def _corner(number: int, columns: int) -> tuple[int, int]:
    row, column = divmod(number, columns)
    return STEP * column + 1, STEP * row + 1


def _annotation(image: int, number: int, columns: int) -> dict[str, Any]:
    x, y = _corner(number, columns)
    return {
        "image_id": image,
        "category_id": (3, 8)[number % 2],
        "bbox": [x, y, 4, 4],
        "segmentation": [[x, y, x + 4, y, x + 4, y + 4, x, y + 4]],
        "area": 16,
        "iscrowd": 0,
    }
