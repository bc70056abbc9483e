"""Sizes on the canvas, against images that are resized one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsctool.config.loading import load_config
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.columns import read_columns
from dsctool.data.object_sizes import ObjectSizes, Resize, test_resize, train_resize
from dsctool.data.records import read_annotation_file
from dsctool.data.rules import Needs
from dsctool.ops.geometry import resize_factor
from tests.data.crowded import write_crowded

test_resize.__test__ = False  # type: ignore[attr-defined]  # which is no test


def drawn(seed: int, count: int = 200) -> ObjectSizes:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(1, 60, (count, 2))
    images = np.sort(rng.integers(60, 900, (count, 2)).astype(float), axis=1)
    return ObjectSizes(np.sqrt(boxes.prod(axis=1) * rng.uniform(0.3, 1, count)), boxes, images)


@pytest.mark.parametrize("resize", [(64, 64), (256, 426), (800, 1333)])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_small_and_what_would_not_be(resize: Resize, seed: int) -> None:
    sizes = drawn(seed)

    def small(short: int, long: int) -> int:
        rows = zip(sizes.side, sizes.image, strict=True)
        return sum(side * resize_factor((int(a), int(b)), short, long) < 8 for side, (a, b) in rows)

    assert sizes.small(resize) == small(*resize)
    wanted = sizes.enough(resize)
    assert wanted[1] / wanted[0] == pytest.approx(resize[1] / resize[0], rel=0.02)
    if small(*resize) < 0.1 * len(sizes):
        assert wanted == resize
        return
    assert wanted[0] % 32 == 0
    assert small(*wanted) <= 0.1 * len(sizes)
    assert small(wanted[0] - 32, wanted[1] - 32) >= 0.1 * len(sizes), "the next smaller ones leave too many"


@pytest.mark.parametrize(("seed", "side"), [(0, 500), (1, 200), (2, 40)])
def test_in_windows(seed: int, side: int) -> None:
    """Against windows that are resized one by one."""
    sizes, resize = drawn(seed), (48, 80)

    def small(side: int) -> int:
        windows = np.minimum(sizes.image, side).astype(int).tolist()
        rows = zip(sizes.side, windows, strict=True)
        return sum(own * resize_factor((a, b), *resize) < 8 for own, (a, b) in rows)

    assert sizes.in_windows(TilesConfig(size=side)).small(resize) == small(side)
    assert sizes.in_windows(None) is sizes
    expected = [closer for closer in range(32, side, 32) if small(closer) < 0.1 * len(sizes)]
    assert sizes.windows_enough(side, resize) == max(expected, default=None)


def test_of_a_reading_without_crowds(tmp_path: Path) -> None:
    root = write_crowded(tmp_path / "data", train=9, val=1)
    reading = read_columns(read_annotation_file(root / "annotations/instances_train.json"), Needs())
    sizes = ObjectSizes.of(reading)
    assert len(sizes) == 18
    assert set(sizes.side.tolist()) == {4.0}
    assert sizes.on_canvas((60, 1000)).tolist() == [2.0] * 18
    assert (sizes.small((60, 1000)), sizes.small((240, 1000))) == (18, 0)


def test_canvases_of_configurations() -> None:
    data = load_config("htc_tiny").data
    assert train_resize(data) == test_resize(data) == (256, 426)
    wide = load_config("htc_tiny", ["data.train_resize.short_sides=[200,300]", "data.jitter.size=128"]).data
    assert train_resize(wide) == (128, 128)
    assert train_resize(wide.model_copy(update={"jitter": None})) == (300, 426)
    views = load_config("htc_tiny", ["data.tta.short_sides=[64,96]"]).data
    assert test_resize(views) == (96, 144)
