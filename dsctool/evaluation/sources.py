"""Ground truth and results in COCO format: read, checked, and copied so that callers keep theirs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.records import LARGEST_NUMBER, AnnotationFile, annotation_file, json_kind, read_annotation_file
from dsctool.data.rle import decompress_runs
from dsctool.data.segmentations import strays
from dsctool.errors import DataError
from dsctool.evaluation.numbering import check_numbering
from dsctool.files import read_json


@dataclass
class GroundTruth:
    """The parts of a COCO annotation file that evaluation uses.

    name: the file, for messages. images, categories: by id. annotations: own copies, in file order.
    masks_checked: their segmentations are compressed RLE, see :func:`check_truth_masks`.
    """

    name: str
    images: dict[Hashable, Mapping[str, Any]]
    categories: dict[Hashable, Mapping[str, Any]]
    annotations: list[dict[str, Any]]
    masks_checked: bool = False

    @property
    def has_masks(self) -> bool:
        """Whether masks can be evaluated: some annotation has one, or there are no annotations at all."""
        return not self.annotations or any(annotation.get("segmentation") for annotation in self.annotations)


@dataclass(frozen=True)
class Predictions:
    """COCO results: own copies, every mask as compressed RLE of its image's size.

    Either all have boxes or none, and either all have masks or none.
    """

    name: str
    results: list[dict[str, Any]]
    has_boxes: bool
    has_masks: bool


GroundTruthSource = str | Path | Mapping[str, Any] | AnnotationFile | GroundTruth
"""A COCO annotation file, what is in it, or what was loaded of it."""
PredictionsSource = str | Path | Sequence[Mapping[str, Any]] | Predictions
"""A COCO results file, the list in it, or what was loaded of it."""


def load_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Reads and checks ground truth, once; ``DataError`` names the file and the annotation id."""
    if isinstance(source, GroundTruth):
        return source
    content = _annotation_file(source)
    name = str(content.path)
    images, categories = _by_id(content.images, name, "images"), _by_id(content.categories, name, "categories")
    annotations = [_annotation(entry, name, index) for index, entry in enumerate(content.annotations)]
    ids = Counter(annotation["id"] for annotation in annotations)
    repeated = [value for value, count in ids.items() if count > 1]
    if repeated:
        raise DataError(f"{name}: annotation id {repeated[0]} appears more than once")
    return GroundTruth(name, images, categories, annotations)


def load_predictions(source: PredictionsSource, truth: GroundTruth) -> Predictions:
    """Reads and checks results against the ground truth, once; ``DataError`` names the file and the index."""
    if isinstance(source, Predictions):
        return source
    if isinstance(source, str | Path):
        check_numbering(Path(source), truth.images, truth.name)
    name, data = (str(source), read_json(Path(source))) if isinstance(source, str | Path) else ("predictions", source)
    if not isinstance(data, Sequence):
        raise DataError(f"{name}: a COCO results file holds a list, this holds {json_kind(data)}")
    results = [_result(entry, f"{name}: result {index}", truth) for index, entry in enumerate(data)]
    has_boxes = _all_or_none(results, "bbox", name)
    has_masks = _all_or_none(results, "segmentation", name)
    return Predictions(name, results, has_boxes, has_masks)


def check_truth_masks(truth: GroundTruth) -> None:
    """Encodes the masks for pycocotools, once; ``DataError`` names the annotation that it cannot compare."""
    if truth.masks_checked:
        return
    for annotation in truth.annotations:
        if annotation["image_id"] not in truth.images:
            continue
        where = f"{truth.name}: annotation id {annotation['id']}"
        if not annotation.get("segmentation"):
            raise DataError(f"{where} has no segmentation, others have: masks cannot be evaluated")
        annotation["segmentation"] = _compressed(annotation["segmentation"], annotation["image_id"], where, truth)
    truth.masks_checked = True


# --- reading --------------------------------------------------------------------------------------


def _annotation_file(source: str | Path | Mapping[str, Any] | AnnotationFile) -> AnnotationFile:
    if isinstance(source, AnnotationFile):
        return source
    if isinstance(source, str | Path):
        return read_annotation_file(Path(source))
    return annotation_file(source, Path("ground truth"))


def _by_id(entries: Sequence[Any], name: str, key: str) -> dict[Hashable, Mapping[str, Any]]:
    by_id: dict[Hashable, Mapping[str, Any]] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not (isinstance(entry.get("id"), str) or _is_number(entry.get("id"))):
            raise DataError(f"{name}: entry {index} of {key!r} has no id, a number or a text")
        by_id[entry["id"]] = entry
    if len({isinstance(value, str) for value in by_id}) > 1:  # pycocotools sorts them
        raise DataError(f"{name}: some ids of {key!r} are numbers and some are text: make them all numbers")
    return by_id


def _annotation(entry: object, name: str, index: int) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or not _is_number(entry.get("id")):
        raise DataError(f"{name}: entry {index} of 'annotations' has no numeric id")
    where = f"{name}: annotation id {entry['id']}"
    for key in ("image_id", "category_id", "bbox", "area"):
        if key not in entry:
            raise DataError(f"{where} has no {key!r}")
    for key in ("image_id", "category_id"):
        if not isinstance(entry[key], Hashable):
            raise DataError(f"{where}: {key} is {entry[key]!r}, not an id")
    if entry.get("iscrowd", 0) not in (0, 1):
        raise DataError(f"{where}: iscrowd is {entry['iscrowd']!r}, not 0 or 1")
    if not _is_number(entry["area"]):
        raise DataError(f"{where}: area is {entry['area']!r}, not a finite number")
    _check_box(entry["bbox"], where)
    return {"iscrowd": 0, **entry}


def _result(entry: object, where: str, truth: GroundTruth) -> dict[str, Any]:
    """A checked copy with the keys that evaluation uses."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is {json_kind(entry)}, not an object")
    for key in ("image_id", "category_id", "score"):
        if key not in entry:
            raise DataError(f"{where} has no {key!r}")
    if not _is_number(entry["score"]):
        raise DataError(f"{where}: score is {entry['score']!r}, not a finite number")
    for key, known, what in (
        ("image_id", truth.images, "image"),
        ("category_id", truth.categories, "category"),
    ):
        if not isinstance(entry[key], Hashable) or entry[key] not in known:
            raise DataError(f"{where}: {what} id {entry[key]!r} is not in {truth.name}")
    result = {key: entry[key] for key in ("image_id", "category_id", "score")}
    if _given(entry, "bbox"):
        _check_box(entry["bbox"], where)
        result["bbox"] = list(entry["bbox"])
    if _given(entry, "segmentation"):
        result["segmentation"] = _compressed(entry["segmentation"], entry["image_id"], where, truth)
    if len(result) == 3:
        raise DataError(f"{where} has neither a 'bbox' nor a 'segmentation'")
    return result


def _given(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key)
    return value is not None and not (isinstance(value, Sequence) and len(value) == 0)


def _all_or_none(results: list[dict[str, Any]], key: str, name: str) -> bool:
    having = [key in result for result in results]
    if any(having) and not all(having):
        with_key, without = having.index(True), having.index(False)
        raise DataError(
            f"{name}: result {with_key} has a {key!r}, result {without} has none: give all of them one, or none"
        )
    return any(having)


# --- values ---------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's integers have no end
        return False


def _check_box(box: object, where: str) -> None:
    values = list(box) if isinstance(box, Iterable) and not isinstance(box, str | Mapping) else []
    if len(values) != 4 or not all(_is_number(value) for value in values):
        raise DataError(f"{where}: bbox is {box!r}, not four finite numbers [x, y, width, height]")


def _compressed(segmentation: object, image_id: Hashable, where: str, truth: GroundTruth) -> dict[str, Any]:
    """Polygons or either kind of RLE as compressed RLE, as pycocotools converts them."""
    image = truth.images[image_id]
    height, width = (image.get(side) for side in ("height", "width"))
    if not isinstance(height, Integral) or not isinstance(width, Integral) or min(int(height), int(width)) <= 0:
        raise DataError(f"{truth.name}: image id {image_id} has no whole 'height' and 'width', which its masks need")
    height, width = int(height), int(width)
    if isinstance(segmentation, Mapping):
        return _checked_rle(segmentation, (height, width), where)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise DataError(f"{where}: segmentation is {json_kind(segmentation)}, neither RLE nor polygons")
    return _polygons_as_rle(segmentation, (height, width), where)


def _polygons_as_rle(polygons: Sequence[Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    for number, polygon in enumerate(polygons, start=1):
        numbers = isinstance(polygon, Sequence) and all(_is_number(value) for value in polygon)
        if not numbers or len(polygon) < 4 or len(polygon) % 2:
            short = str(polygon)[:60]
            raise DataError(f"{where}: a polygon is a list of x, y pairs of finite numbers, this is {short}")
        if number == 1 and len(polygon) < 6:  # pycocotools would take four numbers for a box
            raise DataError(f"{where}: polygon 1 has 2 points, fewer than 3")
        if strays(polygon, size):
            raise DataError(f"{where}: polygon {number} reaches far out of the image, {size[1]} x {size[0]} pixels")
    try:
        return coco_mask.merge(coco_mask.frPyObjects([list(polygon) for polygon in polygons], *size))
    except Exception as error:  # pycocotools raises no narrower one
        raise DataError(f"{where}: pycocotools cannot draw these polygons: {error}") from error


def _checked_rle(rle: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    """Compressed RLE whose runs fill the image: with others pycocotools may never come back."""
    height, width = size
    given, counts = rle.get("size"), rle.get("counts")
    if not isinstance(given, Sequence) or list(given) != [height, width]:
        raise DataError(f"{where}: RLE size is {given!r}, the image is [{height}, {width}] (height, width)")
    runs = _runs(counts)
    if runs is None or len(runs) == 0 or runs.min() < 0 or runs.sum() != height * width:
        raise DataError(f"{where}: RLE counts do not describe {height} x {width} pixels")
    if isinstance(counts, str | bytes):
        return {"size": [height, width], "counts": counts}
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)


def _runs(counts: object) -> NDArray[np.int64] | None:
    """Lengths of the runs, or None where ``counts`` is no encoding at all."""
    if isinstance(counts, str | bytes):
        return decompress_runs(counts)
    if isinstance(counts, Sequence) and all(_is_number(count) and abs(count) <= LARGEST_NUMBER for count in counts):
        return np.asarray(counts, dtype=np.int64)
    return None
