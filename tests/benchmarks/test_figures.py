"""The masks of the benchmarks against pycocotools', which draws them."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.benchmarks.figures import Figures, polygon, runs

SIZE = (480, 640)


def figures() -> Figures:
    """Sixty of all sizes, some at the borders."""
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(0, 6, (60, 2))).clip(1, [640, 480])
    corners = random.choice([0, 0.5, 1], (60, 2)) * ([640, 480] - sides)
    return Figures(np.concatenate([corners, sides], axis=1), random.uniform(0, 6, (60, 4)))


@pytest.mark.parametrize("size", [SIZE, (1400, 1500)])
def test_masks_are_written_as_pycocotools_writes_them(size: tuple[int, int]) -> None:
    """Also those whose runs take five characters."""
    masks = runs(figures(), size)
    for text, counts in zip(masks.texts(), masks.lists(), strict=True):
        bitmap = coco_mask.decode({"size": list(size), "counts": text})
        assert coco_mask.encode(bitmap)["counts"].decode() == text
        assert coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode() == text


def test_boxes_are_those_of_the_masks() -> None:
    masks = runs(figures(), SIZE)
    rles = [{"size": list(SIZE), "counts": text} for text in masks.texts()]
    np.testing.assert_array_equal(masks.boxes, coco_mask.toBbox(rles))


def test_an_outline_is_that_of_the_mask() -> None:
    """But for the pixels on it, and the row at the border that masks spare."""
    made = figures()
    masks = [{"size": list(SIZE), "counts": text} for text in runs(made, SIZE).texts()]
    large = [index for index in range(len(made)) if made.boxes[index, 2:].min() > 40]
    assert large
    for index in large:
        drawn = coco_mask.frPyObjects([polygon(made, index, 100)], *SIZE)
        assert coco_mask.iou(drawn, [masks[index]], [0])[0, 0] > 0.93
