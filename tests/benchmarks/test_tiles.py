"""The benchmark of tiles counts what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.records import Category
from dsctool.data.synthetic.dataset import synthesize
from dsctool.data.tiles import tiles_of
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.ops.spans import Spans, Window
from dsctool.ops.stitching import Piece
from tests.benchmarks.tiles import (
    OVERLAPS,
    SIDE,
    TILE,
    Mosaic,
    Seen,
    by_boxes,
    by_masks,
    cut_truth,
    mosaics,
    outcomes,
    seen_by_an_oracle,
    side_of,
)
from tests.models.tiny import tiny_detector


def test_stitched_mosaics(tmp_path: Path) -> None:
    """An exact view of all tiles gives every instance once; the oracle's nearly all, where merging boxes loses some."""
    synthesize(tmp_path / "scenes", images=1, val_images=4, size=(SIDE, SIDE), seed=1)
    (large,) = mosaics(tmp_path / "scenes", 1)
    lost = {"by_masks": 0, "by_boxes": 0}
    for overlap in OVERLAPS:
        mosaic = large.part(side_of(overlap))
        windows = tiles_of(mosaic.size, TilesConfig(size=TILE, overlap=overlap))
        assert len(windows) == 16
        pieces = seen_by_an_oracle(mosaic, windows, np.random.default_rng(0))
        for rule in (by_masks, by_boxes):
            counts = outcomes(mosaic, rule(pieces, windows), windows)
            lost[rule.__name__] += counts["on seams"] - counts["once"]
        if overlap:
            counts = outcomes(mosaic, by_masks(cut_truth(mosaic.masks, mosaic.labels, windows), windows), windows)
            assert counts["once"] >= 0.97 * counts["on seams"] > 20
    assert lost["by_masks"] < 0.3 * lost["by_boxes"]


def test_a_model_looks_at_tiles_and_at_the_whole(tmp_path: Path) -> None:
    model = tiny_detector("cascade_mask_rcnn_tiny", ["postprocess.score_threshold=0.0", "postprocess.max_per_image=5"])
    categories = tuple(Category(number, f"kind {number}") for number in range(1, model.num_classes + 1))
    path = tmp_path / "best.pt"
    save_checkpoint(path, Checkpoint(config=model.config, categories=categories, model=model.state_dict()))
    side = side_of(OVERLAPS[-1])
    mosaic = Mosaic(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8), [], [])
    windows = tiles_of(mosaic.size, TilesConfig(size=TILE, overlap=OVERLAPS[-1]))[:2]
    seen = Seen(path)
    pieces = seen.pieces(mosaic, windows, np.random.default_rng(0))
    assert {piece.window for piece in pieces} == {0, 1}
    assert seen.whole(mosaic)


def test_outcomes() -> None:
    """Four instances across a seam at 50: found, found twice, cut, and two that are one."""
    rows = [Spans.rectangle(Window(20, top, 80, top + 10)) for top in (0, 20, 40, 60, 70)]
    mosaic = Mosaic(np.zeros((100, 100, 3), dtype=np.uint8), rows, [0] * 5)
    windows = [Window(0, 0, 50, 100), Window(50, 0, 100, 100)]
    results = [(0.9, 0, rows[0]), (0.9, 0, rows[1]), (0.8, 0, rows[1].moved(1, 1)), (0.2, 0, rows[2])]
    results += [(0.9, 0, rows[2].inside(window)) for window in (Window(20, 40, 45, 50), Window(55, 40, 80, 50))]
    results.append((0.9, 0, Spans.rectangle(Window(15, 58, 90, 82))))
    counts = outcomes(mosaic, results, windows)
    expected = {"on seams": 5, "once": 1, "twice": 1, "cut": 1, "fused": 2, "lost": 0, "fragments": 2}
    assert {key: counts[key] for key in expected} == expected
    assert outcomes(mosaic, [], windows)["lost"] == 5


def test_the_rule_of_boxes() -> None:
    """Greedy, best first: what lies in the best by half is united with it, and nothing goes on from there."""
    boxes = {(0, 0, 100, 10): 0.8, (40, 0, 60, 10): 0.9, (300, 0, 320, 10): 0.2, (95, 0, 200, 10): 0.7}
    pieces = [Piece(0, box, score, 0, Spans.rectangle(Window(*box))) for box, score in boxes.items()]
    assert [(score, mask.box) for score, _, mask in by_boxes(pieces, [])] == [
        (0.9, Window(0, 0, 100, 10)),
        (0.7, Window(95, 0, 200, 10)),
    ]
