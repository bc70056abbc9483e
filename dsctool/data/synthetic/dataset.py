"""A generated COCO set of sea animals, shells and pebbles in heaps, for tests, demonstrations and a first try."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.panoptic import PanopticCategory, PanopticWriter
from dsctool.data.stuff import category_color
from dsctool.data.synthetic.scenes import CLASSES, STUFF, Scene, draw_scene
from dsctool.errors import DataError
from dsctool.terms import Size

SMALLEST_SIDE = 64
LARGEST_SIDE = 4096
"""Limits of an image's sides, in pixels."""

_SPLITS = ("train", "val")


def synthesize(
    output: Path,
    *,
    images: int,
    seed: int,
    val_images: int = 0,
    size: Size | None = None,
    huddle: float = 0.5,
    classes: Sequence[str] = CLASSES,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write a data set of the standard layout: splits ``train``, and ``val`` where asked for.

    Each has instances, stuff maps and panoptic truth.

    Masks are the visible parts of the objects, run-length encoded: where one hides another, or cuts it in two, so does
    its mask; no two overlap. Values of the stuff maps are places in
    :data:`~dsctool.data.synthetic.scenes.CLASSES`, then in :data:`~dsctool.data.synthetic.scenes.STUFF`;
    ``stuffthingmaps/labels.txt`` lists those that may occur; category ids are these values plus 1, also those of stuff
    in ``panoptic_<split>.json``. The same seed gives the same files, and an image does not depend on how many there
    are. ``output`` appears whole or not at all.

    size: height and width in pixels; None: sides of 152 to 184 and of 200 to 256, every fourth image upright.
    huddle: from 0, where no boxes overlap, to 1, where almost every object overlaps another one of its class.
    classes: names of ``CLASSES`` that occur; each keeps its category id and its value in the stuff maps.
    progress: told what is drawn, how many images are done, and how many there are.

    Raises:
        DataError: ``output`` is a file or a folder that is not empty, or cannot be written; or a value is out of range.
    """
    _check(output, size, huddle, classes)
    labels = sorted({CLASSES.index(name) for name in classes})
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        for number, (split, count) in enumerate(zip(_SPLITS, (images, val_images), strict=True)):
            if count > 0:
                _write_split(partial, split, count, (seed, number), size, huddle, labels, progress)
        names = "".join(f"{value}: {name}\n" for value, name in _values(labels).items())
        (partial / "stuffthingmaps" / "labels.txt").write_text(names, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(output: Path, size: Size | None, huddle: float, classes: Sequence[str]) -> None:
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"{output}: is not empty; name a new folder")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; name a new folder")
    if size is not None and not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise DataError(
            f"size {size[0]}x{size[1]} (height x width): each side must have from {SMALLEST_SIDE} to "
            f"{LARGEST_SIDE} pixels"
        )
    if not 0 <= huddle <= 1:
        raise DataError(f"huddle {huddle:g}: must lie between 0 (all apart) and 1 (all in heaps)")
    unknown = [name for name in classes if name not in CLASSES]
    if unknown or not classes:
        raise DataError(f"classes {', '.join(unknown) or 'none'}: name one or more of {', '.join(CLASSES)}")


def _write_split(
    root: Path,
    split: str,
    count: int,
    seed: tuple[int, int],
    size: Size | None,
    huddle: float,
    labels: Sequence[int],
    progress: Callable[[str, int, int], None] | None,
) -> None:
    folder, maps = root / split, root / "stuffthingmaps" / split
    folder.mkdir()
    maps.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with PanopticWriter(root / "annotations" / f"panoptic_{split}.json", _panoptic_categories(labels)) as panoptic:
        for image_id in range(1, count + 1):
            rng = np.random.default_rng((*seed, image_id))
            scene = draw_scene(rng, size or _any_size(rng, upright=image_id % 4 == 0), huddle, labels)
            name = f"{image_id:06d}"
            scene.image.save(folder / f"{name}.jpg", quality=93, subsampling=0)
            Image.fromarray(scene.semantic).save(maps / f"{name}.png")
            width, height = scene.image.size
            images.append({"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height})
            annotations += _annotations(scene, image_id, first_id=len(annotations) + 1)
            panoptic.add(image_id, f"{name}.jpg", *_segments(scene))
            if progress is not None:
                progress(f"drawing {split}", image_id, count)
    _write_annotations(root / "annotations" / f"instances_{split}.json", images, annotations, labels)


def _any_size(rng: np.random.Generator, *, upright: bool) -> Size:
    short, long = int(rng.integers(152, 185)), int(rng.integers(200, 257))
    return (long, short) if upright else (short, long)


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    masks = scene.owner[..., None] == np.arange(len(scene.labels))
    annotations = []
    for offset, rle in enumerate(coco_mask.encode(np.asfortranarray(masks, dtype=np.uint8))):
        annotations.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": scene.labels[offset] + 1,
                "segmentation": {
                    "size": [int(side) for side in rle["size"]],
                    "counts": rle["counts"].decode("ascii"),
                },
                "area": float(coco_mask.area(rle)),
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return annotations


def _values(labels: Sequence[int]) -> dict[int, str]:
    """What the stuff maps may say of a pixel."""
    return {label: CLASSES[label] for label in labels} | dict(enumerate(STUFF, start=len(CLASSES)))


def _panoptic_categories(labels: Sequence[int]) -> list[PanopticCategory]:
    """The things that may occur, then all stuff, in colours of their own."""
    kinds = ((value + 1, name, value < len(CLASSES)) for value, name in _values(labels).items())
    return [PanopticCategory(*kind, category_color(kind[0], is_thing=kind[2]), "sea") for kind in kinds]


def _segments(scene: Scene) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """Ids ``(h, w)``, of the objects from 1 on and of each stuff after them, and every id with its category."""
    stuff = np.arange(len(STUFF)) + len(CLASSES)
    first = len(scene.labels) + 1
    ids = np.where(scene.owner >= 0, scene.owner.astype(np.int32) + 1, scene.semantic - len(CLASSES) + np.int32(first))
    things = [(index, label + 1) for index, label in enumerate(scene.labels, start=1)]
    return ids, [*things, *((first + place, int(value) + 1) for place, value in enumerate(stuff))]


def _write_annotations(
    file: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], labels: Sequence[int]
) -> None:
    content = {
        "info": {"description": "Generated scenes of sea animals, shells and pebbles that hide each other"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": CLASSES[label], "supercategory": "sea"} for label in labels],
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
