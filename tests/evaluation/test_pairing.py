"""Masks that are compared in one call."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dsctool.evaluation import pairing
from dsctool.evaluation.coco import evaluate
from dsctool.rle import Rle, decompress_runs
from tests.evaluation.adversarial import adversarial_set


def test_only_masks_of_one_image_have_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of one size, but of different numbers of pixels, pycocotools would compare without end."""
    calls = []

    def spy(one: list[Rle], other: list[Rle], crowds: list[bool]) -> np.ndarray:
        pixels: dict[str, set[int]] = {}
        for mask in (*one, *other):
            runs = decompress_runs(mask["counts"])
            assert runs is not None
            pixels.setdefault(json.dumps(mask["size"]), set()).add(int(runs.sum()))
        assert all(len(each) == 1 for each in pixels.values()), "looked at before it is too late"
        calls.append(len(pixels))
        return np.asarray(compare(one, other, crowds))

    compare = pairing.coco_mask.iou
    monkeypatch.setattr(pairing.coco_mask, "iou", spy)
    for seed in range(40):
        evaluate(*adversarial_set(seed))
    assert max(calls) > 3, "groups are compared together"


def test_how_many_are_compared_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(40):
        truth, results = adversarial_set(seed)
        expected = evaluate(truth, results)
        for masks in (1, 3):
            with monkeypatch.context() as patch:
                patch.setattr(pairing, "_MASKS", masks)
                assert evaluate(truth, results) == expected
