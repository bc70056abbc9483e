"""The benchmark of large training sets, at a thousandth of its size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsctool.config.loading import resolve_config
from dsctool.data.checks import check_data
from tests.benchmarks import loader_workers
from tests.benchmarks.processes import Usage
from tests.benchmarks.training_scale import FAST, described
from tests.benchmarks.training_set import training_set


def test_the_set_is_faultless_and_what_it_says(tmp_path: Path) -> None:
    root = training_set(tmp_path, images=120)
    found = {fault.kind for fault in check_data(root) if fault.severity != "note"}
    assert found <= {"duplicate"}, "shapes are drawn from few"
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    assert (len(content["images"]), len(content["annotations"])) == (120, round(120 * 860_001 / 118_287))
    assert len(json.loads((root / "annotations" / "instances_val2017.json").read_text())["images"]) == 5
    assert training_set(tmp_path, images=120) == root


def test_a_seed_always_makes_the_same_set(tmp_path: Path) -> None:
    here, there = (training_set(tmp_path / name, images=5) for name in ("a", "b"))
    for file in sorted(here.glob("annotations/*")):
        assert file.read_bytes() == (there / "annotations" / file.name).read_bytes()


@pytest.mark.parametrize("data", [True, False])
def test_workers_are_measured_twice(data: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(training_set(tmp_path, images=60)) if data else "-"
    loader_workers.main(root, 1, 40)
    first, last = capsys.readouterr().out.splitlines()
    assert float(first) > 0
    assert float(last) > 0


def test_a_dry_run_is_described() -> None:
    usage = Usage(
        12.34, 20.0, 1500.4, "device   cpu\ntime             0.51 s per step, 1:00 for all steps\nnotes   none\n"
    )
    assert described(usage) == "12.3 s (20.0 s of all cores), at most 1500 MiB; 0.51 s per step, 1:00 for all steps"
    assert resolve_config("htc_r50_fpn_1x_coco", FAST).config.data.semantic == "instances"
