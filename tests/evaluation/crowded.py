"""Generated ground truth and results in which instances huddle, and pycocotools on any images of it."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Json = dict[str, Any]
HEIGHT, WIDTH = 60, 80


def _shape(box: list[int], round_one: bool) -> Json:
    """A rectangle or an ellipse that fills the box, cut at the image's border."""
    x, y, w, h = box
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (columns > x) & (columns < x + w) & (rows > y) & (rows < y + h)
    if round_one:
        inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 < 1
    rle = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def _box(random: np.random.Generator) -> list[int]:
    w, h = (int(side) for side in random.integers(6, 36, 2))
    return [int(random.integers(0, WIDTH - w)), int(random.integers(0, HEIGHT - h)), w, h]


def crowded_truth(seed: int, images: int = 14) -> Json:
    """Few to many instances an image, crowds among them, ids that are in no order; the last image is empty."""
    random = np.random.default_rng(seed)
    ids = random.permutation(np.arange(1, images + 1) * 7).tolist()
    annotations = []
    for image in ids[:-1]:
        for _ in range(int(random.integers(1, 8))):
            box = _box(random)
            mask = _shape(box, bool(random.random() < 0.5))
            annotations.append(
                {
                    "id": 500 - len(annotations),
                    "image_id": image,
                    "category_id": int(random.choice([2, 5, 9])),
                    "bbox": box,
                    "area": float(coco_mask.area(mask)),
                    "iscrowd": int(random.random() < 0.1),
                    "segmentation": mask,
                }
            )
    return {
        "images": [{"id": each, "file_name": f"{each}.png", "height": HEIGHT, "width": WIDTH} for each in ids],
        "categories": [{"id": each, "name": name} for each, name in ((5, "fig"), (2, "date"), (9, "nut"), (11, "pea"))],
        "annotations": annotations,
    }


def noisy_results(truth: Json, seed: int, *, ties: bool = True) -> list[Json]:
    """Some instances found more or less well, some twice, some missed, some invented; some scores are equal."""
    random = np.random.default_rng(seed)
    results = []
    for annotation in truth["annotations"]:
        for _ in range(int(random.choice([0, 1, 1, 1, 2, 3]))):
            shifted = [side + int(random.integers(-2, 3)) for side in annotation["bbox"]]
            category = annotation["category_id"] if random.random() < 0.8 else 11
            results.append(_result(annotation["image_id"], category, shifted, random))
    for image in truth["images"]:
        results += [_result(image["id"], int(random.choice([2, 5, 9])), _box(random), random) for _ in range(2)]
    for number, score in enumerate(random.permutation(len(results))):
        results[number]["score"] = round(0.05 + 0.9 * float(score) / len(results), 1 if ties else 6)
    return results


def _result(image: int, category: int, box: list[int], random: np.random.Generator) -> Json:
    box = [*box[:2], max(box[2], 1), max(box[3], 1)]
    mask = _shape(box, bool(random.random() < 0.5))
    return {"image_id": image, "category_id": category, "bbox": box, "segmentation": mask}


def pycocotools_stats(truth: Json, results: list[Json], kind: str, images: list[Any] | None = None) -> list[float]:
    """The twelve numbers from direct calls, masks without boxes; with ``imgIds`` set to ``images`` where given."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        given = copy.deepcopy(results)
        if kind == "segm":
            given = [{key: value for key, value in result.items() if key != "bbox"} for result in given]
        evaluation = COCOeval(coco, coco.loadRes(given), kind)
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def pycocotools_numbers(truth: Json, results: list[Json], kind: str, images: list[Any]) -> list[float]:
    """AP, AP50, AP75 with ``imgIds`` set to ``images``."""
    return pycocotools_stats(truth, results, kind, images)[:3]
