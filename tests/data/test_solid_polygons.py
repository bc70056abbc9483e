"""Masks as polygons: what they cover, drawn by pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data import solid_polygons as module
from dsctool.data.segmentations import segmentation_problem
from dsctool.data.shapes import drawn
from dsctool.data.solid_polygons import FAITHFUL, solid_polygons
from dsctool.rle import Rle

Bitmap = NDArray[np.bool_]


def encode(bitmap: Bitmap) -> Rle:
    rle: Rle = coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
    return rle


def covered(polygons: list[list[float]], bitmap: Bitmap) -> NDArray[np.int64]:
    """How often each pixel is covered; every polygon is one that the checks of data sets accept."""
    height, width = bitmap.shape
    assert segmentation_problem(polygons, (height, width)) is None
    return sum(coco_mask.decode(drawn([polygon], (height, width))).astype(int) for polygon in polygons)


@settings(max_examples=80, deadline=None)
@given(bitmap=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_borders_of_pixels_are_exact(bitmap: Bitmap) -> None:
    """Whatever the mask: holes, islands in them, pixels that meet at a corner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPECK", 0)
        polygons = solid_polygons(encode(bitmap), tolerance=0)
    if not bitmap.any():
        assert polygons == []
        return
    assert (covered(polygons, bitmap) == bitmap).all(), "each pixel once, and no other"


def disc(side: int, radius: float, *, hole: float = 0.0) -> Bitmap:
    y, x = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(x - side / 2, y - side / 2)
    return (distance < radius) & (distance >= hole)


@pytest.mark.parametrize("radius", [1.5, 3, 6, 12, 40])
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
def test_simplified_ones_stay_beside_the_border(radius: float, tolerance: float) -> None:
    bitmap = disc(100, radius)
    (polygon,) = solid_polygons(encode(bitmap), tolerance=tolerance)
    (corners,) = solid_polygons(encode(bitmap), tolerance=0)
    assert len(polygon) <= len(corners)
    assert len(polygon) < len(corners) / 2 or radius < 12 or tolerance < 1
    found = covered([polygon], bitmap).astype(bool)
    assert (found & bitmap).sum() / (found | bitmap).sum() >= FAITHFUL
    wrong = np.argwhere(found != bitmap) + 0.5 - 50
    assert (abs(np.hypot(*wrong.T) - radius) <= tolerance + 1).all()


def test_a_ring_is_cut_and_stays_hollow() -> None:
    bitmap = disc(60, 25, hole=12)
    polygons = solid_polygons(encode(bitmap))
    assert len(polygons) == 2
    found = covered(polygons, bitmap)
    assert not found[25:35, 25:35].any()
    assert found.max() == 1
    assert (found[8:15, 20:40] == 1).all(), "no gap where it was cut"
    assert (found[45:52, 20:40] == 1).all()
    assert (found.astype(bool) & bitmap).sum() / (found.astype(bool) | bitmap).sum() > FAITHFUL


def test_parts_come_by_size_and_specks_not_at_all() -> None:
    bitmap = np.zeros((40, 40), dtype=bool)
    bitmap[2:6, 2:6] = bitmap[10:30, 10:30] = True
    bitmap[35, 35] = True
    bitmap[20, 20] = False  # nor does a hole of one pixel count
    first, second = solid_polygons(encode(bitmap))
    assert (covered([first], bitmap)[10:30, 10:30] == 1).all()
    assert (covered([second], bitmap)[2:6, 2:6] == 1).all()
    alone = np.zeros((5, 5), dtype=bool)
    alone[2, 2] = True
    assert covered(solid_polygons(encode(alone)), alone).sum() == 1
