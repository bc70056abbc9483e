"""pycocotools' own evaluator, with any numbers of detections and any ranges of areas."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Json = dict[str, Any]
COCO_AREAS = {"s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""COCO's ranges by what its numbers are called."""


def oracle(
    truth: Json,
    results: Sequence[Json],
    kind: str,
    *,
    max_dets: Sequence[int] = (1, 10, 100),
    areas: Mapping[str, tuple[float, float]] = COCO_AREAS,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """All numbers by name, and AP, AP50 and AP75 of every category in the order of ids.

    They are read out of ``eval``, since ``summarize`` is made for 100 detections alone. For masks pycocotools gets the
    results without their boxes.
    """
    evaluation = _accumulated(truth, results, kind, max_dets, areas)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M), (T, K, A, M)
    numbers = {"AP": _mean(precision[:, :, :, 0, -1])}
    numbers |= {"AP50": _mean(precision[0, :, :, 0, -1]), "AP75": _mean(precision[5, :, :, 0, -1])}
    numbers |= {f"AP{name}": _mean(precision[:, :, :, row, -1]) for row, name in enumerate(areas, start=1)}
    numbers |= {f"AR{count}": _mean(recall[:, :, 0, row]) for row, count in enumerate(sorted(max_dets))}
    numbers |= {f"AR{name}": _mean(recall[:, :, row, -1]) for row, name in enumerate(areas, start=1)}
    classes = [
        {
            "AP": _mean(precision[:, :, index, 0, -1]),
            "AP50": _mean(precision[0, :, index, 0, -1]),
            "AP75": _mean(precision[5, :, index, 0, -1]),
        }
        for index in range(precision.shape[2])
    ]
    return numbers, classes


def _accumulated(
    truth: Json,
    results: Sequence[Json],
    kind: str,
    max_dets: Sequence[int],
    areas: Mapping[str, tuple[float, float]],
) -> COCOeval:
    given = copy.deepcopy(list(results))
    if kind == "segm":
        given = [{key: value for key, value in result.items() if key != "bbox"} for result in given]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = _coco(truth)
        # loadRes looks at the first result and fails where there is none.
        found = coco.loadRes(given) if given else _coco({**truth, "annotations": []})
        evaluation = COCOeval(coco, found, kind)
        evaluation.params.maxDets = sorted(max_dets)
        evaluation.params.areaRng = [(0.0, 1e10), *areas.values()]
        evaluation.params.areaRngLbl = ["all", *areas]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(truth: Json) -> COCO:
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0
