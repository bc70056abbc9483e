"""A generated COCO set of sea animals, shells and pebbles in heaps, for tests, demonstrations and a first try."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.cores import on_all_cores
from dsctool.data.panoptic import PanopticCategory, category_entries, ids_picture, segment_entries
from dsctool.data.stuff import category_color
from dsctool.data.synthetic.presets import DESCRIPTION, Preset
from dsctool.data.synthetic.scenes import CLASSES, STUFF, Scene, prepare
from dsctool.data.synthetic.variety import Variety
from dsctool.errors import DataError
from dsctool.terms import Progress, Size

SMALLEST_SIDE = 64
LARGEST_SIDE = 4096
"""Limits of an image's sides, in pixels."""

_SPLITS = ("train", "val")
_TOGETHER = 64  # images between two words of progress
_WORTH = 4  # images for which a further process pays


def synthesize(
    output: Path,
    *,
    images: int,
    seed: int,
    val_images: int = 0,
    size: Size | None = None,
    huddle: float = 0.5,
    classes: Sequence[str] = CLASSES,
    progress: Progress | None = None,
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
    _check(size, huddle, classes)
    labels = sorted({CLASSES.index(name) for name in classes})
    variety = Variety(size=size, huddle=(huddle, huddle), labels=labels)
    _write_set(output, variety, (images, val_images), seed, {"description": DESCRIPTION}, progress)


def synthesize_preset(output: Path, preset: Preset, *, progress: Progress | None = None) -> None:
    """Write a published set, or a :meth:`~dsctool.data.synthetic.presets.Preset.changed` one; ``info`` says which.

    Raises:
        DataError: as :func:`synthesize`.
    """
    _write_set(output, preset.variety, (preset.images, preset.val_images), preset.seed, preset.info, progress)


def _check(size: Size | None, huddle: float, classes: Sequence[str]) -> None:
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


# --- writing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entries:
    """What the annotation files say of an image; the instances have no ids yet."""

    image: dict[str, Any]
    instances: list[dict[str, Any]]
    segments: list[dict[str, Any]]


def _write_set(
    output: Path,
    variety: Variety,
    counts: tuple[int, int],
    seed: int,
    info: dict[str, Any],
    progress: Progress | None,
) -> None:
    """counts: of the images of every split."""
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"{output}: is not empty; name a new folder")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; name a new folder")
    partial_set = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        (partial_set / "annotations").mkdir(parents=True)
        prepare()
        for number, (split, count) in enumerate(zip(_SPLITS, counts, strict=True)):
            if count > 0:
                drawn = _write_images(partial_set, split, count, partial(variety.draw, (seed, number)), progress)
                _write_annotations(partial_set / "annotations", split, drawn, variety.labels, info)
        names = "".join(f"{value}: {name}\n" for value, name in _values(variety.labels).items())
        (partial_set / "stuffthingmaps" / "labels.txt").write_text(names, encoding="utf-8")
        partial_set.replace(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial_set, ignore_errors=True)


def _write_images(
    root: Path, split: str, count: int, draw: Callable[[int], Scene], progress: Progress | None
) -> list[_Entries]:
    """On all cores: every image and its maps; ``draw`` makes the scene of an image id."""
    for folder in (root / split, root / "stuffthingmaps" / split, root / "annotations" / f"panoptic_{split}"):
        folder.mkdir(parents=True)
    drawn: list[_Entries] = []
    while len(drawn) < count:
        some = min(count - len(drawn), _TOGETHER)
        write = partial(_write_some, root, split, draw, len(drawn) + 1)
        drawn += chain.from_iterable(on_all_cores(write, some, worth=_WORTH))
        if progress is not None:
            progress(f"drawing {split}", len(drawn), count)
    return drawn


def _write_some(root: Path, split: str, draw: Callable[[int], Scene], first: int, part: slice) -> list[_Entries]:
    """``part``: of the images from the id ``first`` on."""
    return [_write_image(root, split, draw(image_id), image_id) for image_id in range(first, first + part.stop)[part]]


def _write_image(root: Path, split: str, scene: Scene, image_id: int) -> _Entries:
    name = f"{image_id:06d}"
    scene.image.save(root / split / f"{name}.jpg", quality=93, subsampling=0)
    Image.fromarray(scene.semantic).save(root / "stuffthingmaps" / split / f"{name}.png")
    ids, segments = _segments(scene)
    ids_picture(ids).save(root / "annotations" / f"panoptic_{split}" / f"{name}.png")
    return _Entries(
        {"id": image_id, "file_name": f"{name}.jpg", "width": scene.image.width, "height": scene.image.height},
        _instances(scene, image_id),
        segment_entries(ids, segments, where=f"image {image_id}:"),
    )


def _instances(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    masks = scene.owner[..., None] == np.arange(len(scene.labels))
    instances = []
    for label, rle in zip(scene.labels, coco_mask.encode(np.asfortranarray(masks, dtype=np.uint8)), strict=True):
        instances.append(
            {
                "image_id": image_id,
                "category_id": label + 1,
                "segmentation": {
                    "size": [int(side) for side in rle["size"]],
                    "counts": rle["counts"].decode("ascii"),
                },
                "area": float(coco_mask.area(rle)),
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return instances


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
    folder: Path, split: str, drawn: Sequence[_Entries], labels: Sequence[int], info: dict[str, Any]
) -> None:
    instances = {
        "info": info,
        "images": [each.image for each in drawn],
        "annotations": [
            {"id": number, **instance}
            for number, instance in enumerate(chain.from_iterable(each.instances for each in drawn), start=1)
        ],
        "categories": [{"id": label + 1, "name": CLASSES[label], "supercategory": "sea"} for label in labels],
    }
    panoptic = {
        "images": [{key: each.image[key] for key in ("id", "file_name", "height", "width")} for each in drawn],
        "annotations": [
            {
                "image_id": each.image["id"],
                "file_name": str(Path(each.image["file_name"]).with_suffix(".png")),
                "segments_info": each.segments,
            }
            for each in drawn
        ],
        "categories": category_entries(_panoptic_categories(labels)),
    }
    for kind, content in (("instances", instances), ("panoptic", panoptic)):
        (folder / f"{kind}_{split}.json").write_text(json.dumps(content), encoding="utf-8")
