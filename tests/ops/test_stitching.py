"""What windows found becomes instances: every one once, whole, and where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dsctool.coco_results import encode_bitmap
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.tiles import tiles_of
from dsctool.ops.spans import Spans, Window
from dsctool.ops.stitching import Piece, Stitched, stitch
from tests.benchmarks.tiles import cut_truth

SIZE = (150, 220)
Bitmap = NDArray[np.uint8]


def spans(bitmap: Bitmap) -> Spans:
    import torch

    return Spans.of(encode_bitmap(torch.from_numpy(bitmap)))


def rectangle(*window: int) -> Bitmap:
    x1, y1, x2, y2 = window
    bitmap = np.zeros(SIZE, dtype=np.uint8)
    bitmap[y1:y2, x1:x2] = 1
    return bitmap


def found(masks: Sequence[Bitmap], labels: Sequence[int], overlap: float, *, side: int = 80) -> list[Stitched]:
    """By windows that see everything as it is."""
    windows = tiles_of(SIZE, TilesConfig(size=side, overlap=overlap))
    return stitch(cut_truth([spans(each) for each in masks], labels, windows), windows, agreement=0.5)


def assert_found(stitched: Sequence[Stitched], masks: Sequence[Bitmap]) -> None:
    assert len(stitched) == len(masks)
    left = {spans(mask).rle(SIZE)["counts"] for mask in masks}
    assert {each.mask.rle(SIZE)["counts"] for each in stitched} == left


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_what_all_windows_see_as_it_is_comes_out_as_it_is(overlap: float, seed: int) -> None:
    """Rectangles of any size, longer than windows too, apart from each other: pixel by pixel."""
    random = np.random.default_rng(seed)
    taken, masks = np.zeros(SIZE, dtype=np.uint8), []
    for _ in range(30):
        width, height = random.integers(8, (180, 110)) if random.random() < 0.3 else random.integers(8, 40, 2)
        x, y = random.integers(0, (SIZE[1] - width, SIZE[0] - height))
        if not taken[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1].any():
            masks.append(rectangle(x, y, x + width, y + height))
            taken |= masks[-1]
    stitched = found(masks, random.integers(0, 2, len(masks)).tolist(), overlap)
    assert_found(stitched, masks)
    for each in stitched:
        assert each.box == tuple(each.mask.box)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_neighbours_that_touch_on_a_seam_stay_apart(overlap: float) -> None:
    masks = [rectangle(40, 20, 120, 40), rectangle(40, 40, 120, 60), rectangle(60, 60, 100, 110)]
    assert_found(found(masks, [0, 0, 0], overlap), masks)
    assert_found(found(masks, [0, 1, 0], overlap), masks)


@pytest.mark.parametrize("second", [Window(25, 0, 125, 100), Window(45, 0, 125, 100)])
def test_a_bow_of_which_a_window_sees_two_legs_is_one(second: Window) -> None:
    """Where the other window sees all of it, and where that is cut as well."""
    bow = spans(rectangle(30, 20, 100, 30) | rectangle(30, 50, 100, 60) | rectangle(90, 20, 100, 60))
    part = bow.inside(second)
    legs = [piece(0, (30, top, 80, top + 10), 0.9) for top in (20, 50)]
    windows = [Window(0, 0, 80, 100), second]
    (one,) = stitch([*legs, Piece(1, part.box, 0.8, 0, part)], windows, agreement=0.5)
    assert one.mask.rle(SIZE) == bow.rle(SIZE)
    assert one.box == (30, 20, 100, 60)


def piece(window: int, box: tuple[int, int, int, int], score: float, label: int = 0) -> Piece:
    return Piece(window, box, score, label, Spans.rectangle(Window(*box)))


TWO = [Window(0, 0, 100, 100), Window(75, 0, 175, 100)]


def test_scores() -> None:
    """Those that see it whole decide; where none does, all by their pixels."""
    (both,) = stitch([piece(0, (80, 10, 92, 20), 0.9), piece(1, (80, 10, 93, 20), 0.7)], TWO, agreement=0.5)
    assert both.score == pytest.approx(0.8)
    (one,) = stitch([piece(0, (60, 10, 90, 20), 0.9), piece(1, (75, 10, 90, 20), 0.1)], TWO, agreement=0.5)
    assert (one.score, one.box) == (0.9, (60, 10, 90, 20))
    (long,) = stitch([piece(0, (20, 10, 100, 20), 0.9), piece(1, (75, 10, 115, 20), 0.3)], TWO, agreement=0.5)
    assert long.score == pytest.approx((0.9 * 80 + 0.3 * 40) / 120)
    assert long.mask.area == 95 * 10


def test_what_another_window_sees_whole_and_has_not_found_is_dropped() -> None:
    """The right one sees an end of something that the left one knows to be nothing."""
    assert stitch([piece(1, (75, 10, 85, 20), 0.4)], TWO, agreement=0.5) == []
    assert len(stitch([piece(1, (78, 10, 120, 20), 0.4)], TWO, agreement=0.5)) == 1
    assert len(stitch([piece(0, (60, 10, 100, 20), 0.4)], TWO, agreement=0.5)) == 1, "no window sees all of it"


def test_of_each_window_one_takes_part_and_the_best_pair_first() -> None:
    pieces = [
        piece(0, (20, 10, 100, 30), 0.9),
        piece(0, (60, 10, 100, 28), 0.02),
        piece(1, (75, 10, 130, 30), 0.8),
        piece(1, (75, 60, 130, 80), 0.8, label=1),
    ]
    stitched = stitch(pieces, TWO, agreement=0.5)
    assert [(each.box, each.label) for each in stitched] == [((20, 10, 130, 30), 0), ((75, 60, 130, 80), 1)]


def test_a_chain_of_many_windows_keeps_neighbours_apart() -> None:
    """Two snakes along a row of windows; the masks of one window are a little off."""
    windows = tiles_of((60, 600), TilesConfig(size=60, overlap=0.25))
    assert len(windows) > 10
    pieces = []
    for number, window in enumerate(windows):
        shift = int(number == 4)
        for top in (10, 30):
            box = (max(window.x1, 5), top + shift, min(window.x2, 595), top + 15 + shift)
            pieces.append(piece(number, box, 0.5))
    stitched = stitch(pieces, windows, agreement=0.5)
    assert len(stitched) == 2
    assert all(each.box[0] == 5 and each.box[2] == 595 and len(each.pieces) == len(windows) for each in stitched)


def test_nothing_and_one_window() -> None:
    assert stitch([], TWO, agreement=0.5) == []
    alone = [piece(0, (0, 0, 100, 50), 0.5), piece(0, (0, 0, 100, 51), 0.4)]
    kept = stitch(alone, TWO[:1], agreement=0.5)
    assert [each.score for each in kept] == [0.5, 0.4], "suppression has decided within a window"
