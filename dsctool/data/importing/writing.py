"""The data set that imported pictures become: the standard layout, whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as coco_mask

from dsctool.data.checks import check_data
from dsctool.data.faults import grouped
from dsctool.data.importing.record import Instance, Picture, usable
from dsctool.data.new_folder import bring, whole_folder
from dsctool.errors import DataError
from dsctool.rle import Rle
from dsctool.terms import Progress, Size


def write_set(
    output: Path,
    parts: Mapping[str, Sequence[Picture]],
    classes: Sequence[str],
    *,
    link: bool,
    boxes: bool = True,
    progress: Progress | None = None,
) -> tuple[dict[str, int], list[str]]:
    """Write pictures and ``annotations/instances_<part>.json``, and check them as ``data check`` does.

    What it returns: the instances of each part, and notes.

    Category ids are places in ``classes``, from 1. Polygons stay polygons, all else is run-length encoded; areas and
    boxes are those of the pixels. Instances without pixels are left out, and counted. link: pictures get a second name
    instead of being copied. boxes: annotations have them.

    Raises:
        DataError: ``output`` is not new, or cannot be written, or the data set would have faults; nothing is left.
    """
    ids = {name: number for number, name in enumerate(classes, start=1)}
    empty: list[str] = []
    counts: dict[str, int] = {}
    with whole_folder(output) as partial:
        (partial / "annotations").mkdir()
        for part, pictures in parts.items():
            content = _write_part(partial / part, pictures, ids, link, empty, progress)
            counts[part] = len(content["annotations"])
            if not boxes:
                for entry in content["annotations"]:
                    del entry["bbox"]
            text = json.dumps(content, ensure_ascii=False)
            (partial / "annotations" / f"instances_{part}.json").write_text(text, encoding="utf-8")
        notes = _check(partial, output, progress=progress)
    if empty:
        notes.append(f"{len(empty)} instance{'s' * (len(empty) > 1)} without a pixel left out, the first at {empty[0]}")
    return counts, notes


def _check(partial: Path, output: Path, *, progress: Progress | None) -> list[str]:
    """Warnings and notes about a data set that will be ``output``."""
    faults = [
        replace(
            fault,
            file=output / fault.file.relative_to(partial),
            message=fault.message.replace(str(partial), str(output)),
        )
        for fault in check_data(partial, progress=progress)
    ]
    wrong = grouped([fault for fault in faults if fault.severity == "error"])
    if wrong:
        shown = "\n".join(wrong[:20])
        raise DataError(f"{shown}\n{output}: was not made, since it would have these faults")
    return grouped(faults)


def _write_part(
    folder: Path,
    pictures: Sequence[Picture],
    ids: Mapping[str, int],
    link: bool,
    empty: list[str],
    progress: Progress | None,
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    folder.mkdir()
    for number, (picture, name) in enumerate(zip(pictures, file_names(pictures), strict=True), start=1):
        bring(picture.path, folder / name, link=link, data=picture.data)
        height, width = picture.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for instance in picture.instances:
            fields = annotation(instance, picture.size)
            if fields is None:
                empty.append(instance.where)
                continue
            own = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[instance.category]}
            annotations.append(own | fields)
        if progress is not None:
            progress(f"writing {folder.name}", number, len(pictures))
    categories = [{"id": id_, "name": name, "supercategory": ""} for name, id_ in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def annotation(instance: Instance, size: Size) -> dict[str, Any] | None:
    """Segmentation, area, box and crowd flag of an instance as COCO has them; None where it has no pixel."""
    rle = instance.rle(size)
    area = int(coco_mask.area(rle))
    if area == 0:
        return None
    polygons = [] if instance.mask is not None else usable(instance.polygons, size, instance.where)
    as_mask = instance.crowd or not polygons
    return {
        "segmentation": written(rle) if as_mask else polygons,
        "area": area,
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "iscrowd": int(instance.crowd),
    }


def written(rle: Rle) -> dict[str, Any]:
    """A run-length encoding as JSON has it."""
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts if isinstance(counts, str) else counts.decode(),
    }


def file_names(pictures: Sequence[Picture]) -> list[str]:
    """Names in the new folder: the files' own, or with their folders' before them where these alone tell them apart."""
    names = [PurePosixPath(picture.name).name for picture in pictures]
    often = Counter(name.casefold() for name in names)
    return [
        name if often[name.casefold()] == 1 else picture.name for name, picture in zip(names, pictures, strict=True)
    ]
