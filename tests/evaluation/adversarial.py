"""Small sets of truth and results on which a matcher that is only nearly COCO's goes wrong.

Every rare thing is common here: equal scores, equal IoUs, IoUs of exactly a threshold, boxes that appear twice, crowds
over instances, empty masks and boxes, areas at the ends of ranges and beyond them, categories and images without truth,
ids with gaps and id 0, more detections than are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Json = dict[str, Any]
SIDE = 128
"""Height of the images, and width of the narrowest."""
_GRID = 16
_SIDES = (0, 16, 32, 32, 32, 48, 64, 96, 96, 128)
_AREAS = (0.0, 500.0, 1024.0, 1024.0, 1025.0, 9216.0, 9216.0, 9217.0, 1e10, 2e10, -1.0)
_SCORES = (0.0, 0.25, 0.5, 0.5, 0.5, 0.75, 1.0)


def adversarial_set(seed: int) -> tuple[Json, list[Json]]:
    """Ground truth and results with boxes and masks; the same for the same seed."""
    random = np.random.default_rng(seed)
    images = (random.choice(50, size=random.integers(1, 4), replace=False) * 3).tolist()
    categories = (random.choice(9, size=random.integers(1, 4), replace=False) * 2 + 1).tolist()
    places = [_place(random) for _ in range(random.integers(1, 6))]
    annotations = _annotations(random, images, categories, places)
    truth = {
        "images": [{"id": each, "file_name": f"{each}.png", "height": SIDE, "width": SIDE} for each in images],
        "categories": [{"id": each, "name": f"class {each}"} for each in categories],
        "annotations": annotations,
    }
    busy = random.random() < 0.05  # more than COCO counts
    results = []
    for _ in range(230 if busy else int(random.integers(0, 30))):
        about = annotations[int(random.integers(len(annotations)))] if annotations and random.random() < 0.6 else None
        place = _chosen(random, places if about is None else [tuple(int(side) for side in about["bbox"])])
        result = _shape(random, place)
        result["image_id"] = int(random.choice(images)) if about is None else about["image_id"]
        result["category_id"] = int(random.choice(categories)) if about is None else about["category_id"]
        if busy:
            result |= {"image_id": images[0], "category_id": categories[0]}
        result["score"] = float(random.choice(_SCORES)) if random.random() < 0.7 else float(random.random())
        results.append(result)
    _widen(truth, results, np.random.default_rng([seed, 1]))
    return truth, results


def _widen(truth: Json, results: list[Json], random: np.random.Generator) -> None:
    """Some images get a few columns more, so that few have one size: masks of different sizes cannot be compared."""
    widths = {image["id"]: SIDE + int(random.integers(0, 5)) for image in truth["images"]}
    for image in truth["images"]:
        image["width"] = widths[image["id"]]
    for entry in (*truth["annotations"], *results):
        columns = np.zeros((SIDE, widths[entry["image_id"]] - SIDE), dtype=np.uint8)
        mask = np.asfortranarray(np.hstack([coco_mask.decode(entry["segmentation"]), columns]))
        entry["segmentation"] = {"size": list(mask.shape), "counts": coco_mask.encode(mask)["counts"].decode()}


def _annotations(random: np.random.Generator, images: list[int], categories: list[int], places: list[Any]) -> list[Any]:
    """The last image and the last category are often left without any."""
    with_truth = images[: max(1, len(images) - int(random.integers(0, 2)))]
    known = categories[: max(1, len(categories) - int(random.integers(0, 2)))]
    ids = random.permutation(60) + int(random.random() < 0.7)  # from 0 or from 1, in no order
    annotations = []
    for number in ids[: random.integers(0, 20)].tolist():
        shape = _shape(random, _chosen(random, places))
        true_area = float(coco_mask.area(shape["segmentation"]))
        annotations.append(
            shape
            | {
                "id": number,
                "image_id": int(random.choice(with_truth)),
                "category_id": int(random.choice(known)),
                "area": true_area if random.random() < 0.5 else float(random.choice(_AREAS)),
                "iscrowd": int(random.random() < 0.2),
            }
        )
    return annotations


def _place(random: np.random.Generator) -> tuple[int, int, int, int]:
    """``(x, y, width, height)`` on a coarse grid."""
    width, height = (int(side) for side in random.choice(_SIDES, 2))
    x, y = (int(random.integers(0, (SIDE - side) // _GRID + 1)) * _GRID for side in (width, height))
    return x, y, width, height


def _chosen(random: np.random.Generator, places: list[Any]) -> tuple[int, int, int, int]:
    """One of the set's places, a step beside it, or any other."""
    if random.random() < 0.15:
        return _place(random)
    x, y, width, height = places[int(random.integers(len(places)))]
    if random.random() < 0.5:
        step = int(random.choice([2, 4, 8, 16]))
        x, y = (int(np.clip(at + step * random.integers(-1, 2), 0, SIDE)) for at in (x, y))
        width, height = (max(0, side + step * int(random.integers(-1, 2))) for side in (width, height))
    return x, y, width, height


def _shape(random: np.random.Generator, place: tuple[int, int, int, int]) -> Json:
    """The place as a box, and a mask in it: all of it, with holes, or nothing."""
    x, y, width, height = place
    inside = np.zeros((SIDE, SIDE), dtype=np.uint8)
    inside[y : y + height, x : x + width] = 1
    kind = random.random()
    if kind < 0.2:
        inside[:: int(random.integers(2, 6))] = 0
    elif kind < 0.25:
        inside[:] = 0
    rle = coco_mask.encode(np.asfortranarray(inside))
    return {
        "bbox": [float(side) for side in place],
        "segmentation": {"size": [SIDE, SIDE], "counts": rle["counts"].decode()},
    }
