"""pycocotools, hotcoco or faster-coco-eval on two files: ``python -m ... NAME TRUTH RESULTS NUMBERS [--mask-areas]``.

Prints its tables for boxes and for masks and writes what it found to the JSON file NUMBERS: of each kind the twelve
numbers, and from pycocotools AP, AP50 and AP75 of every category. All three give a mask the area of the box that the
file has beside it; with ``--mask-areas`` pycocotools counts its pixels, as dsctool, mmdet and detectron2 do.
"""

from __future__ import annotations

import argparse
import importlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
}
"""Where each has its class COCO, and where which class that evaluates."""


def installed() -> list[str]:
    """Those that can be run here."""
    return [name for name, (module, *_) in MODULES.items() if find_spec(module.partition(".")[0]) is not None]


def evaluate(name: str, truth: Path, results: Path, *, mask_areas: bool = False) -> dict[str, Any]:
    """The numbers of both kinds."""
    data, evaluator, cls = MODULES[name]
    coco = importlib.import_module(data).COCO(str(truth))
    found = coco.loadRes(str(results))
    evaluation_of = getattr(importlib.import_module(evaluator), cls)
    numbers: dict[str, dict[str, list[Any]]] = {}
    for kind in ("bbox", "segm"):
        if kind == "segm" and mask_areas:
            for result in found.anns.values():
                result["area"] = float(importlib.import_module("pycocotools.mask").area(result["segmentation"]))
        evaluation = evaluation_of(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        numbers[kind] = {"stats": [float(value) for value in evaluation.stats]}
        if name == "pycocotools":
            numbers[kind]["classes"] = class_numbers(evaluation)
    return numbers


def class_numbers(evaluation: Any) -> list[list[float]]:
    """pycocotools' AP, AP50 and AP75 of every category: all areas, at most 100 results an image."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    rows = [precision, precision[:1], precision[5:6]]
    return [[_mean(row[:, :, category]) for row in rows] for category in range(precision.shape[2])]


def _mean(values: np.ndarray[Any, Any]) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODULES)
    for word in ("truth", "results", "numbers"):
        parser.add_argument(word, type=Path)
    parser.add_argument("--mask-areas", action="store_true")
    given = parser.parse_args()
    found = evaluate(given.name, given.truth, given.results, mask_areas=given.mask_areas)
    given.numbers.write_text(json.dumps(found))
