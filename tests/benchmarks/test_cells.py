"""Pictures full of cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsctool.data.checks import check_data
from tests.benchmarks.cells import cell_set
from tests.evaluation.crowded import pycocotools_stats


def test_what_is_perfect_finds_all_that_is_counted(tmp_path: Path) -> None:
    truth, results = (json.loads(path.read_text()) for path in cell_set(tmp_path / "cells", images=1, instances=150))
    assert [fault for fault in check_data(tmp_path / "cells") if fault.severity != "note"] == []
    assert len(truth["annotations"]) == len(results) == 150
    for kind in ("bbox", "segm"):
        ap, *_, recall_1, recall_10, recall_100, _, _, _ = pycocotools_stats(truth, results, kind)
        assert (recall_1, recall_10, recall_100) == pytest.approx((1 / 150, 10 / 150, 100 / 150))
        assert ap == pytest.approx(67 / 101), "AP is the share of COCO's 101 recalls that are reached"
