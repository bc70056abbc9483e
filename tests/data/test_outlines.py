"""Outlines against drawing them again, and components against a flood."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.outlines import border_error, components, midpoints, outline, simplified, with_seams
from dsctool.data.shapes import drawn

Mask = NDArray[np.uint8]


def random_masks(count: int, side: int) -> list[Mask]:
    rng = np.random.default_rng(5)
    return [
        (rng.random(rng.integers(1, side, 2)) < share).astype(np.uint8)
        for share in np.linspace(0.1, 0.95, count).tolist()
    ]


def flooded(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Components by their definition."""
    found = np.zeros_like(values)
    for start in zip(*np.nonzero(values > 0), strict=True):
        if found[start]:
            continue
        found[start] = found.max() + 1
        stack = [start]
        while stack:
            y, x = stack.pop()
            around = [(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
            for place in around:
                inside = 0 <= place[0] < values.shape[0] and 0 <= place[1] < values.shape[1]
                if inside and not found[place] and values[place] == values[y, x]:
                    found[place] = found[start]
                    stack.append(place)
    return found


@pytest.mark.parametrize("joined", [False, True])
def test_outlines_are_the_mask_again(joined: bool) -> None:
    """With holes and parts at will, of one polygon for each part or of one for all."""
    for mask in random_masks(60, 20):
        groups = [[part.outer, *part.holes] for part in outline(mask)]
        if joined and groups:
            groups = [[ring for group in groups for ring in group]]
        polygons = [with_seams(group).ravel().tolist() for group in groups]
        again = coco_mask.decode(drawn(polygons, mask.shape)) if polygons else np.zeros_like(mask)
        assert np.array_equal(again, mask)


def test_a_part_has_its_own_holes() -> None:
    """An island in a hole is a part, and so is nothing that touches at a corner."""
    mask = np.zeros((12, 12), dtype=np.uint8)
    mask[1:10, 1:10] = 1
    mask[2:9, 2:9] = 0
    mask[4:7, 4:7] = 1
    mask[5, 5] = 0
    mask[10, 10] = 1
    parts = outline(mask)
    assert sorted(len(part.holes) for part in parts) == [1, 1]
    around, inner = sorted(parts, key=lambda part: float(part.outer.min()))
    assert np.array_equal(np.unique(around.holes[0]), [2, 9])
    assert np.array_equal(np.unique(inner.holes[0]), [5, 6])


def test_components_are_those_of_a_flood() -> None:
    rng = np.random.default_rng(1)
    for classes in (2, 3, 5):
        for _ in range(8):
            values = rng.integers(0, classes, rng.integers(1, 16, 2))
            ours, theirs = components(values), flooded(values)
            assert ours.max(initial=0) == theirs.max(initial=0)
            assert len(np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1).T) == len(np.unique(theirs))


def test_few_points_stay_near_the_border() -> None:
    ys, xs = np.mgrid[:80, :80]
    disc = ((ys - 40) ** 2 + (xs - 38) ** 2 < 30**2).astype(np.uint8)
    (part,) = outline(disc)
    for ring in (part.outer, midpoints(part.outer)):
        fewer = simplified(ring, 0.75)
        assert len(fewer) < len(part.outer) / 2
        assert border_error(disc, coco_mask.decode(drawn([fewer.ravel().tolist()], disc.shape))) <= 1
    assert len(simplified(midpoints(part.outer), 0.75)) < 40


def test_what_has_no_pixels_has_no_outline() -> None:
    assert outline(np.zeros((3, 4))) == []
    assert components(np.zeros((3, 4), dtype=np.int64)).max() == 0
