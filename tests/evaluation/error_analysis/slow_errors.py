"""The types of error and what they cost, written down as plainly as they can be: slow, and without pycocotools."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Json = dict[str, Any]


class SlowErrors:
    """Results at IoU 0.5 against the annotations with the ids ``wanted``; all others are ignored.

    detection_areas: results out of it that match nothing are ignored.
    """

    def __init__(
        self,
        truth: Json,
        results: list[Json],
        kind: str,
        wanted: set[int],
        detection_areas: tuple[float, float] = (0.0, 1e10),
    ) -> None:
        self.kind, self.wanted = kind, wanted
        self.categories = sorted(each["id"] for each in truth["categories"])
        self.annotations = sorted(truth["annotations"], key=lambda each: (each["image_id"], each["category_id"]))
        rows = sorted(results, key=lambda each: (each["image_id"], each["category_id"], -each["score"]))
        self.detections = [row for row in rows if self._rank(row, rows) < 100]
        self.pixels = {id(each): _pixels(each, kind) for each in [*self.annotations, *self.detections]}
        self.outcome: list[bool | None] = []
        self.taken: set[int] = set()
        for detection in self.detections:
            outcome = self._match(detection)
            low, high = detection_areas
            if outcome is False and not low <= self._area(detection) <= high:
                outcome = None
            self.outcome.append(outcome)
        self.types = [self._type(*each) for each in zip(self.detections, self.outcome, strict=True)]
        about = {one["id"] for name, one in self.types if name in ("classification", "localisation") and one}
        self.missed = {each for each in wanted if each not in self.taken and each not in about}

    @staticmethod
    def _rank(row: Json, rows: list[Json]) -> int:
        same = [each for each in rows if all(each[key] == row[key] for key in ("image_id", "category_id"))]
        return next(index for index, each in enumerate(same) if each is row)

    def _area(self, one: Json) -> float:
        return float(one["bbox"][2] * one["bbox"][3]) if self.kind == "bbox" else float(self.pixels[id(one)].sum())

    def iou(self, detection: Json, annotation: Json, *, crowd: bool = False) -> float:
        """Against a crowd, of the detection's area."""
        if self.kind == "bbox":
            (x, y, w, h), (u, v, s, t) = detection["bbox"], annotation["bbox"]
            inside = max(min(x + w, u + s) - max(x, u), 0) * max(min(y + h, v + t) - max(y, v), 0)
            own, other = w * h, s * t
        else:
            first, second = self.pixels[id(detection)], self.pixels[id(annotation)]
            inside, own, other = (first & second).sum(), first.sum(), second.sum()
        return float(inside / (own if crowd else own + other - inside)) if inside > 0 else 0.0

    def _match(self, detection: Json) -> bool | None:
        """The best free annotation that is wanted, else the best ignored one."""
        for ignored in (False, True):
            best, best_value = None, 0.5
            for annotation in self.annotations:
                if any(annotation[key] != detection[key] for key in ("image_id", "category_id")):
                    continue
                if (annotation["id"] not in self.wanted) != ignored:
                    continue
                if annotation["id"] in self.taken and not annotation["iscrowd"]:
                    continue
                value = self.iou(detection, annotation, crowd=bool(annotation["iscrowd"]))
                if value >= best_value:
                    best, best_value = annotation, value
            if best is not None:
                self.taken.add(best["id"])
                return None if ignored else True
        return False

    def _nearest(self, detection: Json, *, own: bool) -> tuple[float, Json | None]:
        best_value, best = 0.0, None
        for annotation in self.annotations:
            same = annotation["category_id"] == detection["category_id"]
            if annotation["image_id"] == detection["image_id"] and same == own and not annotation["iscrowd"]:
                value = self.iou(detection, annotation)
                if value > best_value:
                    best_value, best = value, annotation
        return best_value, best

    def _type(self, detection: Json, outcome: bool | None) -> tuple[str, Json | None]:
        if outcome is not False:
            return "", None
        own_iou, own = self._nearest(detection, own=True)
        other_iou, other = self._nearest(detection, own=False)
        if 0.1 <= own_iou < 0.5:
            name, about = "localisation", own
        elif other_iou >= 0.5:
            name, about = "classification", other
        elif own_iou >= 0.5:
            name, about = "duplicate", own
        elif max(own_iou, other_iou) < 0.1:
            name, about = "background", None
        else:
            name, about = "both", other
        if about is not None and about["id"] not in self.wanted:
            name = "elsewhere"
        return name, about

    def precision(self, mended: Collection[str]) -> float:
        """AP50 with the errors of some types mended."""
        chosen: dict[int, int] = {}  # the row that will find each instance
        for row, (name, about) in enumerate(self.types):
            if name in mended and name in ("classification", "localisation") and about is not None:
                rival = chosen.get(about["id"])
                free = about["id"] not in self.taken
                if free and (rival is None or self.detections[row]["score"] > self.detections[rival]["score"]):
                    chosen[about["id"]] = row
        ranked: dict[int, list[tuple[float, bool]]] = {each: [] for each in self.categories}
        for row, (detection, outcome) in enumerate(zip(self.detections, self.outcome, strict=True)):
            name, about = self.types[row]
            if about is not None and chosen.get(about["id"]) == row:
                ranked[about["category_id"]].append((detection["score"], True))
            elif outcome is not None and name not in mended:
                ranked[detection["category_id"]].append((detection["score"], outcome))
        left = self.wanted - self.missed if "missed" in mended else self.wanted
        return self._mean(ranked, left)

    def _mean(self, ranked: dict[int, list[tuple[float, bool]]], left: set[int]) -> float:
        values = []
        for category, entries in ranked.items():
            own = {each["id"] for each in self.annotations if each["category_id"] == category}
            if own & self.wanted:
                right = [good for _, good in sorted(entries, key=lambda each: -each[0])]
                values.append(_interpolated(right, len(own & left)))
        return float(np.mean(values))

    def losses(self) -> dict[str, tuple[int, float]]:
        """Count and difference of every type."""
        start, found = self.precision(()), [name for name, _ in self.types]
        names = ("classification", "localisation", "both", "duplicate", "background", "missed", "elsewhere")
        counts = {name: len(self.missed) if name == "missed" else found.count(name) for name in names}
        return {name: (counts[name], self.precision((name,)) - start) for name in names}


def _pixels(one: Json, kind: str) -> Any:
    return coco_mask.decode(one["segmentation"]).astype(bool) if kind == "segm" else None


def _interpolated(right: list[bool], total: int) -> float:
    """The mean over 101 recalls of the best precision at this recall or a higher one; 1 without anything to find."""
    if total == 0:
        return 1.0
    points = [(sum(right[:count]) / total, sum(right[:count]) / count) for count in range(1, len(right) + 1)]
    recalls = np.linspace(0.0, 1.0, 101)
    return float(np.mean([max((value for recall, value in points if recall >= at), default=0.0) for at in recalls]))
