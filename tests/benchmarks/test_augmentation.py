"""The numbers of the benchmark of augmentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsctool.config.loading import load_config
from tests.benchmarks.augmentation import ARMS, RECIPE, evaluations, mask_ap, spread, table


def test_intervals_are_students() -> None:
    """By hand: mean 2, deviation 1, t of two degrees of freedom 4.303."""
    assert spread([1.0, 2.0, 3.0]) == "+2.0000 +- 2.4843"
    lines = table({"none": [1.0, 2.0], "other": [1.5, 2.5]})
    assert lines[1].endswith("difference +0.5000 +- 0.0000")


def test_a_run_that_is_there_is_not_repeated(tmp_path: Path) -> None:
    lines = [{"kind": "train", "loss": 1.0}, {"kind": "eval", "segm_AP": 0.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert mask_ap(tmp_path, tmp_path / "none", (), 0) == 0.25
    assert evaluations(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("arm", ARMS)
def test_its_recipes_are_configurations(arm: str) -> None:
    data = load_config("htc_tiny", [*RECIPE, *ARMS[arm]]).data
    assert (data.copy_paste is not None) == (arm in ("copy-paste", "both"))
    assert (data.jitter is not None) == (arm in ("jitter", "both"))
