"""Masks against drawing them pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.importing.label_studio import decode_brush
from dsctool.data.importing.rasters import (
    bitmap_rle,
    ellipse,
    even_odd,
    label_rles,
    placed,
    read_values,
    turned,
    window,
)
from dsctool.data.importing.voc import _INDEX, CLASSES
from dsctool.data.shapes import drawn
from dsctool.errors import DataError
from tests.data.importing.foreign import brush


def test_every_value_has_its_mask() -> None:
    """To the letter as pycocotools encodes it, wherever the mask begins and ends."""
    rng = np.random.default_rng(0)
    for values in (2, 4, 40):
        for _ in range(20):
            label = rng.integers(-1, values, rng.integers(1, 12, 2))
            found = label_rles(label)
            assert sorted(found) == [value for value in np.unique(label).tolist() if value > 0]
            for value, rle in found.items():
                assert rle == bitmap_rle(label == value)


def test_a_window_is_the_box_around_a_mask() -> None:
    rng = np.random.default_rng(1)
    for share in (0.05, 0.3, 1.0):
        for _ in range(20):
            mask = rng.random(rng.integers(1, 12, 2)) < share
            if mask.any():
                left, top, inside = window(bitmap_rle(mask))
                assert np.array_equal(placed(inside, left, top, mask.shape), mask)
                assert inside.any(axis=0)[[0, -1]].all()
                assert inside.any(axis=1)[[0, -1]].all()


def test_what_sticks_out_is_cut() -> None:
    small = np.arange(1, 7).reshape(2, 3)
    for top in range(-3, 6):
        for left in range(-4, 8):
            whole = np.zeros((4, 5), dtype=bool)
            for y in range(2):
                for x in range(3):
                    if 0 <= top + y < 4 and 0 <= left + x < 5:
                        whole[top + y, left + x] = True
            assert np.array_equal(placed(small, left, top, (4, 5)), whole)


def test_rings_within_rings() -> None:
    """A hole, and an island in it."""
    squares = [[a, a, b, a, b, b, a, b] for a, b in ((1.0, 9.0), (2.0, 8.0), (4.0, 6.0))]
    mask = coco_mask.decode(even_odd(squares, (10, 10), "here"))
    wanted = np.zeros((10, 10))
    wanted[1:9, 1:9], wanted[2:8, 2:8], wanted[4:6, 4:6] = 1, 0, 1
    assert np.array_equal(mask, wanted)
    with pytest.raises(DataError, match="here: polygon 1 reaches far out"):
        even_odd([[0, 0, 1e6, 0, 0, 5]], (10, 10), "here")


def test_ellipses_have_their_area_and_turn() -> None:
    for degrees in (0, 30, 90):
        mask = coco_mask.decode(drawn([ellipse(40, 40, 30, 12, degrees)], (80, 80)))
        assert mask.sum() == pytest.approx(math.pi * 30 * 12, rel=0.02)
    assert mask.any(axis=1).sum() == pytest.approx(60, abs=1)  # upright now
    assert turned([1, 0, 0, 1, 2, 2], 90, (0, 0)) == pytest.approx([0, 1, -1, 0, -2, 2])


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I", "F", "RGB", "RGBA", "LA"])
def test_values_are_those_that_are_stored(mode: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [0, 1, 0]]) if mode == "1" else np.array([[0, 7, 7], [200, 7, 0]])
    if mode in ("I;16", "I", "F"):
        values = values * 300
    dtype = {"1": bool, "I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode, np.uint8)
    image = Image.fromarray(values.astype(dtype))
    if mode == "P":
        image.putpalette([255, 0, 0] * 256)
    if mode in ("RGB", "RGBA", "LA"):
        image = image.convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_values(tmp_path / "a.tif"), values)


def test_colours_are_values_too(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 3), dtype=np.uint8)
    pixels[0, 1], pixels[0, 2] = (1, 2, 3), (9, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_values(tmp_path / "a.png").tolist() == [[0, 1 + 2 * 256 + 3 * 65_536, 9]]
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif: holds fractions"):
        read_values(tmp_path / "b.tif")
    frames = [Image.new("L", (2, 2)), Image.new("L", (2, 2), 1)]
    frames[0].save(tmp_path / "c.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"c\.tif: has several pages"):
        read_values(tmp_path / "c.tif")


def test_brushes_are_unpacked_or_refused() -> None:
    mask = np.random.default_rng(0).random((48, 64)) < 0.5
    data = bytes(brush(mask))
    assert np.array_equal(decode_brush(data, 4 * mask.size).reshape(48, 64, 4)[..., 3] > 0, mask)
    with pytest.raises(ValueError, match="a mask of 3072 pixels"):
        decode_brush(data, 4)
    with pytest.raises(ValueError, match="ends early"):
        decode_brush(data[:50], 4 * mask.size)


def test_vocs_palette() -> None:
    """Its first colours as the challenge's page lists them."""
    colours = {
        (0, 0, 0): 0,
        (128, 0, 0): 1,
        (0, 128, 0): 2,
        (128, 128, 0): 3,
        (192, 128, 128): 15,
        (224, 224, 192): 255,
    }
    for (red, green, blue), index in colours.items():
        assert _INDEX[red + 256 * green + 65_536 * blue] == index
    assert len(CLASSES) == 20
