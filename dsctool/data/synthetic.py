"""A generated COCO set of overlapping shapes, for tests, demonstrations and a first try."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from dsctool.data.shapes import CLASSES, Bitmap, Scene, Shape, draw_scene
from dsctool.errors import DataError


def synthesize(output: Path, *, images: int, seed: int, val_images: int = 0) -> None:
    """Write a data set of the standard layout: splits ``train``, and ``val`` where asked for.

    Masks are the visible parts of the shapes: where one hides another, or cuts it in two, so does its mask.
    The same seed gives the same files. ``output`` appears whole or not at all.

    Raises:
        DataError: ``output`` is a file or a folder that is not empty, or cannot be written.
    """
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"{output}: is not empty; name a new folder")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; name a new folder")
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        for number, (split, count) in enumerate((("train", images), ("val", val_images))):
            if count > 0:
                _write_split(partial, split, count, np.random.SeedSequence((seed, number)))
        partial.replace(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_split(root: Path, split: str, count: int, seed: np.random.SeedSequence) -> None:
    folder = root / split
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image_seed in enumerate(seed.spawn(count), start=1):
        scene = draw_scene(np.random.default_rng(image_seed))
        name = f"{image_id:06d}.jpg"
        scene.image.save(folder / name, quality=92)
        images.append({"id": image_id, "file_name": name, "width": scene.image.width, "height": scene.image.height})
        annotations += _annotations(scene, image_id, first_id=len(annotations) + 1)
    content = {
        "info": {"description": "Generated shapes that hide each other"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name, "supercategory": "shape"} for label, name in enumerate(CLASSES)],
    }
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    annotations = []
    for offset, (shape, visible, hidden) in enumerate(zip(scene.shapes, scene.visible, scene.hidden, strict=True)):
        segmentation, rle = _run_lengths(visible) if hidden else _polygon(shape, visible.shape)
        annotations.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": shape.label + 1,
                "segmentation": segmentation,
                "area": float(coco_mask.area(rle)),
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return annotations


def _run_lengths(visible: Bitmap) -> tuple[dict[str, Any], dict[str, Any]]:
    rle = coco_mask.encode(np.asfortranarray(visible.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}, rle


def _polygon(shape: Shape, size: tuple[int, ...]) -> tuple[list[list[float]], dict[str, Any]]:
    polygon = [coordinate for point in shape.outline for coordinate in point]
    return [polygon], coco_mask.merge(coco_mask.frPyObjects([polygon], size[0], size[1]))
