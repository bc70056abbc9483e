"""Detections as COCO's results files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor


class Rle(TypedDict):
    """COCO's compressed run-length encoding of a mask, column by column. size: ``[height, width]``."""

    size: list[int]
    counts: str


class Result(TypedDict):
    """One detection.

    bbox: ``[x, y, width, height]`` in pixels of the original image. segmentation: absent without masks.
    """

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[Rle]


def coco_results(
    *,
    boxes: Tensor,
    scores: Tensor,
    masks: Sequence[Rle] | None,
    category_ids: Sequence[int],
    image_id: int,
) -> list[Result]:
    """The detections of one image.

    boxes: ``(n, 4)`` xyxy in pixels. scores: ``(n,)``. masks, category_ids: one per detection.
    """
    boxes = boxes.float()
    numbers = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores.float()[:, None]], dim=1).cpu()
    results = []
    for category, row in zip(category_ids, numbers, strict=True):
        *bbox, score = _shortest(row)
        results.append(Result(image_id=image_id, category_id=category, bbox=bbox, score=score))
    if masks is not None:
        for result, mask in zip(results, masks, strict=True):
            result["segmentation"] = mask
    return results


def reaching(results: Sequence[Result], thresholds: Mapping[int, float]) -> list[Result]:
    """Those that score at least what ``thresholds`` has for their category, by its id."""
    return [result for result in results if result["score"] >= thresholds[result["category_id"]]]


def encode_bitmap(mask: Tensor) -> Rle:
    """The run-length encoding of a bitmap ``(h, w)``, bool or uint8 0/1."""
    rle = coco_mask.encode(np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8))
    return Rle(size=list(mask.shape), counts=rle["counts"].decode("ascii"))


def decode_bitmap(mask: Rle) -> Tensor:
    """``(h, w)`` uint8 0/1."""
    return torch.from_numpy(coco_mask.decode(mask))


def mask_area(mask: Rle) -> int:
    """Its pixels."""
    return int(coco_mask.area(mask))


def _shortest(values: Tensor) -> list[float]:
    """The shortest decimals that give back the same float32: half the text of a results file."""
    return [float(str(value)) for value in values.numpy()]
