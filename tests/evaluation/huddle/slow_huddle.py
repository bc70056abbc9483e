"""The definitions of the huddle report, written down as plainly as they can be: slow, and without pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Json = dict[str, Any]


def largest_overlap(one: Json, annotations: list[Json], overlap: str, same_class: bool) -> float:
    """Of an instance with another one of its image."""
    others = [
        other
        for other in annotations
        if other is not one
        and not other["iscrowd"]
        and other["image_id"] == one["image_id"]
        and (not same_class or other["category_id"] == one["category_id"])
    ]
    return max((_overlap(one, other, overlap) for other in others), default=0.0)


def _overlap(one: Json, other: Json, overlap: str) -> float:
    inside, first, second = (_box_areas if overlap == "box" else _mask_areas)(one, other)
    whole = min(first, second) if overlap == "iomin" else first + second - inside
    return inside / whole if inside > 0 else 0.0


def _box_areas(one: Json, other: Json) -> tuple[float, float, float]:
    (x, y, w, h), (u, v, s, t) = one["bbox"], other["bbox"]
    across, down = min(x + w, u + s) - max(x, u), min(y + h, v + t) - max(y, v)
    return max(across, 0) * max(down, 0), w * h, s * t


def _mask_areas(one: Json, other: Json) -> tuple[float, float, float]:
    first, second = (coco_mask.decode(each["segmentation"]).astype(bool) for each in (one, other))
    return float((first & second).sum()), float(first.sum()), float(second.sum())


def crowded_images(truth: Json, t_o: float, t_p: float, overlap: str, same_class: bool) -> list[Any]:
    """Ids of the images of the subset (T_O, T_P), ascending."""
    chosen = []
    for image in truth["images"]:
        own = [each for each in truth["annotations"] if each["image_id"] == image["id"] and not each["iscrowd"]]
        huddled = [each for each in own if largest_overlap(each, own, overlap, same_class) > t_o]
        if own and len(huddled) / len(own) > t_p:
            chosen.append(image["id"])
    return sorted(chosen)


def instance_precision(truth: Json, results: list[Json], kind: str, wanted: set[int]) -> float:
    """AP over the annotations with the ids ``wanted``; other instances and crowds are ignored."""
    values = []
    for category in truth["categories"]:
        total = sum(each["category_id"] == category["id"] and each["id"] in wanted for each in truth["annotations"])
        if total:
            for threshold in np.linspace(0.5, 0.95, 10):
                outcomes = _outcomes(truth, results, kind, wanted, category["id"], threshold)
                values.append(_interpolated([good for good in outcomes if good is not None], total))
    return float(np.mean(values)) if values else -1.0


def _outcomes(
    truth: Json, results: list[Json], kind: str, wanted: set[int], category: int, threshold: float
) -> list[bool | None]:
    """By descending score: whether each detection is right; None for those that count neither way."""
    scored = []
    with_instances = {each["image_id"] for each in truth["annotations"] if not each["iscrowd"]}
    for image in sorted(with_instances):
        here = [each for each in truth["annotations"] if (each["image_id"], each["category_id"]) == (image, category)]
        found = [each for each in results if (each["image_id"], each["category_id"]) == (image, category)]
        taken: set[int] = set()
        for detection in sorted(found, key=lambda each: -each["score"])[:100]:
            scored.append((detection["score"], _choose(detection, here, taken, kind, wanted, threshold)))
    return [outcome for _, outcome in sorted(scored, key=lambda each: -each[0])]


def _choose(
    detection: Json, annotations: list[Json], taken: set[int], kind: str, wanted: set[int], threshold: float
) -> bool | None:
    """Takes the best free wanted annotation, else the best ignored one, and says what that makes the detection."""
    for ignored in (False, True):
        best, best_value = None, threshold
        for annotation in annotations:
            free = annotation["iscrowd"] or annotation["id"] not in taken
            if free and (annotation["id"] not in wanted) == ignored:
                value = _match_value(detection, annotation, kind)
                if value >= best_value:
                    best, best_value = annotation, value
        if best is not None:
            taken.add(best["id"])
            return None if ignored else True
    return False


def _match_value(detection: Json, annotation: Json, kind: str) -> float:
    inside, own, other = (_box_areas if kind == "bbox" else _mask_areas)(detection, annotation)
    whole = own if annotation["iscrowd"] else own + other - inside
    return inside / whole if inside > 0 else 0.0


def _interpolated(right: list[bool], total: int) -> float:
    """The mean over 101 recalls of the best precision at this recall or a higher one."""
    points = [(sum(right[:count]) / total, sum(right[:count]) / count) for count in range(1, len(right) + 1)]
    recalls = np.linspace(0.0, 1.0, 101)
    return float(np.mean([max((value for recall, value in points if recall >= at), default=0.0) for at in recalls]))
