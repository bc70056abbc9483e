"""A data set of rectangles of two classes in three images, to be spoilt all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.layout import SplitFiles

WIDTH, HEIGHT = 96, 64
_BOXES = ([20, 10, 24, 14], [58, 8, 16, 30], [30, 40, 18, 12], [70, 44, 14, 16])


def pieces(*, runs: bool = False) -> dict[str, Any]:
    """Twelve annotations with ids from 1 on, all in order. runs: masks as run lengths, not as polygons."""
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)]
    annotations = []
    for image in (1, 2, 3):
        for number, (x, y, w, h) in enumerate(_BOXES):
            x += image  # the shapes of no two images are equal
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            rle = coco_mask.frPyObjects([outline], HEIGHT, WIDTH)[0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1 + number % 2,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()} if runs else [outline],
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}],
    }


def write_pieces(root: Path, content: object | None = None, split: str = "train") -> SplitFiles:
    """The set as a split under ``root``, its pictures different from each other."""
    files = SplitFiles(root / "annotations" / f"instances_{split}.json", root / split)
    files.annotations.parent.mkdir(parents=True, exist_ok=True)
    files.images.mkdir()
    files.annotations.write_text(json.dumps(pieces() if content is None else content))
    for number in (1, 2, 3):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files.images / f"{number}.png")
    return files
