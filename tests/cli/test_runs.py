"""``dsctool runs``."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from tests.runs.test_summary import make_run


def runs(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["runs", *map(str, words)])


def test_a_row_for_each_run(tmp_path: Path) -> None:
    (make_run(tmp_path / "a", "train.seed=3", word="stopped") / "last.pt").touch()
    make_run(tmp_path / "b", "optim.lr=0.5", word="finished")
    result = runs(tmp_path)
    assert result.exit_code == 0, result.output
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["run", "state", "resume", "best", "steps", "time", "configuration"]
    cells = (
        f"{tmp_path / 'a'}  stopped   yes     box AP 0.2500 in epoch 1  7/70   0:01:15  optim.lr=0.0005 train.seed=3"
    )
    assert first.split() == cells.split()
    assert second.endswith("optim.lr=0.5 train.seed=0")


def test_one_run_is_set_beside_the_shipped_ones(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "optim.lr=0.5")
    assert runs(tmp_path / "a").stdout.splitlines()[1].endswith("0:01:15  optim.lr=0.5")


def test_json_and_a_plot(tmp_path: Path) -> None:
    for name in ("x/a", "y/a"):
        make_run(tmp_path / name, word="failed")
    result = runs(tmp_path, "--json", "-", "--plot", tmp_path / "plots" / "p.png")
    assert result.exit_code == 0, result.output
    first, _ = json.loads(result.stdout)
    assert first == {
        "run": str(tmp_path / "x/a"), "state": "failed", "resumable": False, "reason": "why", "step": 7, "steps": 70,
        "seconds": 75.0, "best": {"kind": "bbox", "AP": 0.25, "epoch": 1.0}, "configuration": {},
    }  # fmt: skip
    with Image.open(tmp_path / "plots/p.png") as image:
        assert image.width > image.height > 300
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert {(26, 111, 208), (217, 105, 15)} <= colors, "a colour for each run"


def test_a_run_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    (make_run(tmp_path / "b") / "config.yaml").write_text("optim: {lr: fast}\n")
    result = runs(tmp_path)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert f"left out: {tmp_path / 'b'}: " in result.stderr
    (tmp_path / "a/metrics.jsonl").write_text("nonsense\n")
    assert "no run could be read" in runs(tmp_path).stderr


def test_where_there_is_none(tmp_path: Path) -> None:
    result = runs(tmp_path)
    assert result.exit_code == 1
    assert "there is no run in it" in result.stderr
