"""Pictures of panoptic results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dsctool.data.panoptic import PanopticCategory
from dsctool.data.stuff import category_color
from dsctool.models.panoptic import Fused, FusedSegment
from dsctool.visualize.panoptic import draw_panoptic, save_panoptic

SIZE = 120, 160
CATEGORIES = {
    id_: PanopticCategory(id_, name, thing, category_color(id_, is_thing=thing))
    for id_, name, thing in ((1, "crab", True), (7, "sand", False), (8, "rock", False))
}


def result() -> Fused:
    """Sand to the left, void to the right, a crab on either."""
    ids = np.zeros(SIZE, dtype=np.int32)
    ids[:, :80] = 3
    ids[30:90, 20:60], ids[30:90, 100:140] = 1, 2
    return Fused(ids, (FusedSegment(1, 1, 0.9), FusedSegment(2, 1, 0.8), FusedSegment(3, 7, None)))


def drawn(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def strength(pixels: np.ndarray) -> float:
    """How colourful they are."""
    return float((pixels.max(axis=-1) - pixels.min(axis=-1)).mean())


def test_things_stand_out_stuff_is_muted_void_is_dark_grey() -> None:
    image = torch.full((3, *SIZE), 150, dtype=torch.uint8)
    image[0] = 170
    pixels = drawn(draw_panoptic(image, result(), CATEGORIES))
    assert pixels.shape == (*SIZE, 3)
    crab, other, sand, void = pixels[60:80, 30:50], pixels[60:80, 110:130], pixels[100:, 5:15], pixels[100:, 100:]
    assert strength(crab) > 2 * strength(sand) > 0
    assert strength(other) > 2 * strength(sand)
    assert np.abs(crab.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max() > 5, "two crabs have two shades"
    assert strength(void) == 0
    assert void.mean() < 0.7 * 155
    edge = pixels[60:80, 59:61].mean(axis=(0, 1))
    assert np.abs(edge - crab.mean(axis=(0, 1))).max() > 20, "things have outlines"


def test_a_category_has_one_colour_in_all_pictures() -> None:
    image = torch.full((3, *SIZE), 128, dtype=torch.uint8)
    first = result()
    second = Fused(
        np.where(first.ids == 3, 1, np.where(first.ids == 2, 2, 0)).astype(np.int32),
        (FusedSegment(1, 7, None), FusedSegment(2, 1, 0.3)),
    )
    one, other = (drawn(draw_panoptic(image, each, CATEGORIES)) for each in (first, second))
    np.testing.assert_array_equal(one[110:, :15], other[110:, :15])
    np.testing.assert_array_equal(one[70, 40], other[70, 120])


def test_names_and_nothing_at_all(tmp_path: Path) -> None:
    image = Image.new("RGB", (SIZE[1], SIZE[0]), (200, 200, 200))
    nothing = Fused(np.zeros(SIZE, dtype=np.int32), ())
    assert set(drawn(draw_panoptic(image, nothing, CATEGORIES)).ravel()) == {120}
    small = np.zeros(SIZE, dtype=np.int32)
    small[:5, :5] = 1
    pixels = drawn(draw_panoptic(image, Fused(small, (FusedSegment(1, 8, None),)), CATEGORIES))
    assert set(pixels[5:].ravel()) == {120}, "specks of stuff have no names"
    named = drawn(draw_panoptic(image, result(), CATEGORIES))
    assert (named[:, :80].min(axis=-1) < 40).any(), "letters"
    save_panoptic(tmp_path / "new" / "a.jpg", torch.zeros(3, *SIZE, dtype=torch.uint8), result(), CATEGORIES)
    with Image.open(tmp_path / "new" / "a.jpg") as saved:
        assert saved.size == (160, 120)
