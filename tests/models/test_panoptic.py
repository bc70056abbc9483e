"""Panoptic fusion against its definition, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from dsctool.models.panoptic import (
    MIN_SCORES,
    Fused,
    FusionSettings,
    Stuff,
    Things,
    fuse,
    labelled_stuff,
)
from dsctool.terms import FusionRule, PixelRule

H, W = 7, 12
Masks = NDArray[np.bool_]


def slow(
    scores: Sequence[float], classes: Sequence[int], boxes: NDArray[np.float32], masks: Masks,
    probabilities: NDArray[np.float32], stuff: Sequence[tuple[int, Masks]], settings: FusionSettings,
) -> tuple[list[list[int]], list[int]]:  # fmt: skip
    """The map as lists, and the category of each id, by the words of the published description."""
    mmdet = settings.rule == "mmdet"
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if scores[i] < settings.min_score or (mmdet and scores[i] == settings.min_score):
            continue
        if mmdet and any(box_iou(boxes[i].tolist(), boxes[j].tolist()) > 0.5 for j in kept):
            continue
        kept.append(i)
    if mmdet:
        kept = kept[:100]
    accepted: list[int] = []
    for i in kept:
        area = covered = 0
        for y, x in product(range(H), range(W)):
            if masks[i][y][x]:
                area += 1
                covered += any(masks[j][y][x] for j in accepted)
        if area and covered / (area + (1e-5 if mmdet else 0)) <= settings.overlap:
            accepted.append(i)
    owner: list[list[int | None]] = [[None] * W for _ in range(H)]
    for y, x in product(range(H), range(W)):
        claim = [i for i in accepted if masks[i][y][x]]
        if claim:
            by_probability = settings.pixel == "probability"
            owner[y][x] = max(claim, key=lambda i: probabilities[i][y][x]) if by_probability else claim[0]
    segments: list[tuple[int, list[tuple[int, int]]]] = []
    for i in accepted:
        segments.append((classes[i], [(y, x) for y, x in product(range(H), range(W)) if owner[y][x] == i]))
    taken = {pixel for _, pixels in segments for pixel in pixels}
    for category, mask in sorted(stuff, key=lambda each: each[0]) if settings.rule == "detectron2" else stuff:
        left = [(y, x) for y, x in product(range(H), range(W)) if mask[y][x] and (y, x) not in taken]
        if len(left) >= settings.stuff_area:
            segments.append((category, left))
            taken |= set(left)
    segments = [segment for segment in segments if segment[1]]
    ids = [[0] * W for _ in range(H)]
    for number, (_, pixels) in enumerate(segments, start=1):
        for y, x in pixels:
            ids[y][x] = number
    return ids, [category for category, _ in segments]


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def fused(
    scores: Sequence[float], classes: Sequence[int], boxes: NDArray[np.float32], masks: Masks,
    probabilities: NDArray[np.float32], stuff: Sequence[tuple[int, Masks]], settings: FusionSettings,
) -> Fused:  # fmt: skip
    things = Things(scores, classes, boxes, lambda i: masks[i], lambda i: probabilities[i])
    return fuse((H, W), things, Stuff([category for category, _ in stuff], lambda i: stuff[i][1]), settings)


@pytest.mark.parametrize("rule", ["published", "detectron2", "mmdet"])
@pytest.mark.parametrize("pixel", ["score", "probability"])
def test_equals_its_definition(rule: FusionRule, pixel: PixelRule) -> None:
    rng = np.random.default_rng(0)
    dropped = shared = ordered = 0
    for case in range(200):
        n = int(rng.integers(0, 9))
        corner = rng.integers(0, (W - 2, H - 2), (n, 2))
        sides = rng.integers(2, 8, (n, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
        y, x = np.mgrid[:H, :W]
        masks = np.zeros((n, H, W), dtype=bool)
        for i, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
            masks[i] = (x >= x1) & (x < x2) & (y >= y1) & (y < y2) & (rng.random((H, W)) < rng.choice([0.0, 0.5, 1.0]))
        probabilities = np.where(masks, rng.integers(5, 10, (n, H, W)) / 10, 0.1).astype(np.float32)
        scores = (rng.integers(3, 11, n) / 10).tolist()  # with equal ones, and with the limits themselves
        classes = rng.integers(1, 4, n).tolist()
        stuff = [(int(c), rng.random((H, W)) < 0.5) for c in rng.permutation([7, 8, 9])[: rng.integers(0, 4)]]
        settings = FusionSettings(
            rule=rule, min_score=MIN_SCORES[rule], pixel=pixel, stuff_area=int(rng.choice([0, 8, 20])),
            overlap=float(rng.choice([0.5, 1.0])),
        )  # fmt: skip
        inputs = (scores, classes, boxes, masks, probabilities, stuff, settings)
        found, (ids, categories) = fused(*inputs), slow(*inputs)
        np.testing.assert_array_equal(found.ids, ids, err_msg=str(case))
        assert [segment.category for segment in found.segments] == categories, case
        assert [segment.id for segment in found.segments] == list(range(1, len(categories) + 1))
        assert set(np.unique(found.ids).tolist()) - {0} == {segment.id for segment in found.segments}
        dropped += len(categories) < sum(score >= 0.5 for score in scores)
        shared += bool((masks.sum(axis=0) > 1).any())
        ordered += categories[-2:] != sorted(categories[-2:])
    assert min(dropped, shared, ordered) > 5, "the cases meet what they are for"


def test_half_covered_is_kept_and_stuff_of_the_limit_too() -> None:
    masks = np.zeros((3, H, W), dtype=bool)
    masks[0, :, :4], masks[1, :, 2:6], masks[2, :, 3:6] = True, True, True  # half of the second, all of the third
    stuff = [(9, np.ones((H, W), dtype=bool))]
    boxes = np.array([[0, 0, 4, H], [2, 0, 6, H], [3, 0, 6, H]], dtype=np.float32)
    for area, last in ((6 * H, True), (6 * H + 1, False)):
        found = fused([0.9, 0.8, 0.5], [1, 1, 2], boxes, masks, masks * 1.0, stuff, FusionSettings(stuff_area=area))
        assert [s.category for s in found.segments] == [1, 1, 9][: 2 + last]
        assert found.ids[0].tolist() == [1, 1, 1, 1, 2, 2] + [3 * last] * 6


def test_detectron2_writes_stuff_by_category() -> None:
    both = [(9, np.ones((H, W), dtype=bool)), (7, np.ones((H, W), dtype=bool))]
    nothing = ([], [], np.zeros((0, 4), np.float32), np.zeros((0, H, W), bool), np.zeros((0, H, W), np.float32))
    for rule, category in (("published", 9), ("mmdet", 9), ("detectron2", 7)):
        found = fused(*nothing, both, FusionSettings(rule=rule, stuff_area=1))  # type: ignore[arg-type]
        assert [s.category for s in found.segments] == [category]


def test_mmdet_suppresses_over_all_classes() -> None:
    masks = np.zeros((2, H, W), dtype=bool)
    masks[0, :4], masks[1, 4:] = True, True
    boxes = np.array([[0, 0, 8, 8], [0, 0, 8, 7]], dtype=np.float32)
    counts = []
    for rule in ("published", "mmdet"):
        settings = FusionSettings(rule=rule)  # type: ignore[arg-type]
        counts.append(len(fused([0.9, 0.8], [1, 2], boxes, masks, masks * 1.0, [], settings).segments))
    assert counts == [2, 1]


def test_a_label_map_is_stuff() -> None:
    labels = np.array([[0, 0, 2], [3, 2, -1]])
    stuff = labelled_stuff(labels, [10, 11, 12])
    assert list(stuff.categories) == [10, 12]
    np.testing.assert_array_equal(stuff.mask(1), labels == 2)
