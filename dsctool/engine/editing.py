"""Results as annotations that people correct: a data set of its own, which CVAT, Label Studio and training read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pycocotools import mask as coco_mask

from dsctool.coco_results import Result, reaching
from dsctool.data.image_files import output_names
from dsctool.data.records import Category
from dsctool.data.shapes import drawn
from dsctool.data.solid_polygons import solid_polygons
from dsctool.engine.work_file import ImageEntry, ImageResults, JsonList
from dsctool.errors import DataError
from dsctool.files import keep_as, whole_file
from dsctool.rle import Rle

SPLIT = "default"
"""What CVAT calls the part of a data set that has no name."""
_CUT = ".*.tmp"
"""Files that were being written when a run was killed."""
Entries = Callable[[], Iterable[ImageResults]]
"""All finished images, as often as they are asked for."""


def annotations_of(folder: Path) -> Path:
    """The file to be edited, of a data set in the standard layout."""
    return folder / "annotations" / f"instances_{SPLIT}.json"


def refuse_edited(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Raise DataError where something is in ``folder``; with ``overwrite`` only where it is not of this kind.

    resume: what a run left that was stopped before it had written the annotations is in nobody's way.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    file = annotations_of(folder)
    if resume and folder.is_dir() and _begun(folder):
        return
    if not file.is_file():
        raise DataError(f"{folder}: is no empty folder, and holds nothing to edit; name another one for editing")
    if not overwrite:
        raise DataError(f"{file}: may have been edited since it was written; name another folder, or use --overwrite")


def _begun(folder: Path) -> bool:
    """Whether there are pictures alone."""
    others = [path.name for path in folder.iterdir() if path.name != SPLIT]
    annotations = annotations_of(folder).parent
    written = annotations.iterdir() if annotations.is_dir() else ()
    return others in ([], [annotations.name]) and all(path.match(_CUT) for path in written)


def write_for_editing(
    folder: Path, entries: Entries, categories: Sequence[Category], thresholds: Mapping[int, float]
) -> int:
    """Write a data set of what reaches its category's score threshold; how many instances it has.

    Images are linked or copied. Masks become :func:`~dsctool.data.solid_polygons.solid_polygons`, in one annotation for
    each instance; those without pixels are left out. Boxes without masks stay boxes. Every annotation has its
    ``score``, also in ``attributes``, where editors keep what is no shape. The annotation file comes last, whole or not
    at all.
    """
    images = [entry["image"] for entry in entries()]
    paths = [Path(image["file_name"]) for image in images]
    stems = output_names(paths)
    names = {
        image["id"]: (stem if stem.suffix == path.suffix else stem.with_name(stem.name + path.suffix)).as_posix()
        for image, path, stem in zip(images, paths, stems, strict=True)
    }
    for image, path in zip(images, paths, strict=True):
        target = folder / SPLIT / names[image["id"]]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and target.samefile(path)):
            keep_as(path.resolve(), target)
    file, count = annotations_of(folder), 0
    for part in (folder / SPLIT, file.parent):
        for path in part.rglob(_CUT):
            path.unlink()
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as stream:
        listed, annotated = JsonList(stream, head='{"images": '), JsonList(stream, head=', "annotations": ')
        listed.extend({**image, "file_name": names[image["id"]]} for image in images)
        listed.end("")
        for image, results in ((entry["image"], entry["results"]) for entry in entries()):
            kept = reaching(results, thresholds)
            for annotation in _annotations(image, kept):
                count += 1
                annotated.extend([{"id": count, **annotation}])
        kinds = [{"id": category.id, "name": category.name, "supercategory": ""} for category in categories]
        annotated.end(f', "categories": {msgspec.json.encode(kinds).decode()}}}\n')
    return count


def _annotations(image: ImageEntry, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    size = (image["height"], image["width"])
    for result in results:
        score = round(result["score"], 4)
        annotation: dict[str, Any] = {"image_id": image["id"], "category_id": result["category_id"]}
        mask = result.get("segmentation")
        if mask is None:
            annotation |= _clipped(result["bbox"], size)
        else:
            polygons = solid_polygons(Rle(size=mask["size"], counts=mask["counts"]))
            if not polygons:
                continue
            shape = drawn(polygons, size)
            area, box = float(coco_mask.area(shape)), coco_mask.toBbox(shape).tolist()
            annotation |= {"segmentation": polygons, "bbox": box, "area": area}
        yield annotation | {"iscrowd": 0, "score": score, "attributes": {"score": score}}


def _clipped(box: Sequence[float], size: tuple[int, int]) -> dict[str, Any]:
    x, y = max(box[0], 0.0), max(box[1], 0.0)
    width, height = min(box[0] + box[2], size[1]) - x, min(box[1] + box[3], size[0]) - y
    return {"bbox": [x, y, width, height], "area": width * height}
