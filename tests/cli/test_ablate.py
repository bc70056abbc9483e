"""``dsctool ablate``: costs first, then every row with every seed, then what differs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.cli.plan import Step
from dsctool.cli.side_by_side import Crew, Job
from dsctool.data.synthetic.dataset import synthesize
from dsctool.engine.run_cost import RunCost
from dsctool.evaluation.coco import evaluate
from tests.evaluation.crowded import Json

GRID = """
description: A try
base: htc_tiny
overrides:
  - train.steps=2
  - train.batch_size=1
  - train.eval_interval=0
  - data.workers=0
  - data.train_resize.short_sides=[64]
  - data.test_resize.short_sides=[64]
  - optim.warmup_steps=1
rates: {factors: [0.5, 1], overrides: [train.steps=1]}
rows:
  htc: {title: HTC}
  mask: {title: "HTC, by masks", of: htc, overrides: [postprocess.nms=mask]}
"""
COMMANDS: list[str] = []


def in_this_process(crew: Crew, job: Job, step: Step, device: str) -> int:
    """A process for each of the commands takes longer than all they do here."""
    COMMANDS.append(step.command)
    result = CliRunner().invoke(app, list(step.continued()))
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.write_text(result.output)
    return result.exit_code


def ablate(grid: Path, *words: str) -> Result:
    root = grid.parent
    files = ["--data", str(root / "scenes"), "--output", str(root / "out"), "--bootstrap", "12"]
    return CliRunner().invoke(app, ["ablate", str(grid), *files, *words])


@pytest.fixture(scope="module", autouse=True)
def times_are_measured_once() -> Iterator[None]:
    """Most of what a grid of runs as small as these takes is to measure them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsctool.cli.ablation_results.ROUNDS", 1)
        patch.setattr("dsctool.cli.ablation_results.PICTURES", 2)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A grid that has run with two seeds, and what it said."""
    root = tmp_path_factory.mktemp("ablation")
    synthesize(root / "scenes", images=3, val_images=3, seed=0, size=(64, 64))
    grid = root / "try.yaml"
    grid.write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "_call", in_this_process)
        patch.setattr("dsctool.engine.run_cost.run_costs", lambda configs, *_: (RunCost(2, 3, 0.5) for _ in configs))
        result = ablate(grid, "--seeds", "0,1")
    return grid, result


def results(grid: Path) -> Json:
    return json.loads((grid.parent / "out/try/results.json").read_text())


def test_it_says_what_it_costs_and_what_came_out(made: tuple[Path, Result]) -> None:
    grid, result = made
    assert result.exit_code == 0, result.output
    assert "2 seeds and rates" in result.output
    assert "0:00:03  " not in result.output.split("in all")[1]
    assert "about 0:00:03 in all" in result.output  # 2 x 2 + 2 x 1 steps of half a second
    assert "minus htc, with intervals of 95 %:" in result.output
    for name in ("report.html", "table.csv", "table.tex", "results.json", "times.json", "tradeoff.png"):
        assert (grid.parent / "out/try" / name).stat().st_size > 0, name


def test_every_run_is_an_ordinary_one(made: tuple[Path, Result]) -> None:
    out = made[0].parent / "out"
    for seed in (0, 1):
        assert f"seed: {seed}" in (out / f"runs/htc/seed-{seed}/config.yaml").read_text()
        assert (out / f"runs/htc/seed-{seed}/best.pt").exists()
        assert sorted(path.name for path in (out / f"runs/mask/seed-{seed}").iterdir()) == [
            "measured.npz", "predictions.json", "seen.json", "stats.json",
        ]  # fmt: skip
    shown = CliRunner().invoke(app, ["runs", str(out / "runs")])
    assert shown.output.count("finished") == 2


def test_numbers_are_those_of_the_runs(made: tuple[Path, Result]) -> None:
    grid, _ = made
    content = results(grid)
    truth = grid.parent / "scenes/annotations/instances_val.json"
    for row in content["rows"]:
        values = row["estimates"]["values"]["segm"]["AP"]
        own = [evaluate(truth, grid.parent / f"out/runs/{row['name']}/seed-{seed}/predictions.json") for seed in (0, 1)]
        assert values == [stats["segm"]["AP"] for stats in own if stats["segm"]]
        assert row["estimates"]["means"]["segm"]["AP"]["value"] == pytest.approx(np.mean(values))
    assert content["rows"][1]["of"] == "htc"
    assert content["rows"][1]["changes"] == ["postprocess.nms=mask"]


def test_rates_are_looked_for_first(made: tuple[Path, Result]) -> None:
    grid, _ = made
    tried = results(grid)["rows"][0]["tried"]
    assert set(tried) == {"0.5", "1"}
    best = max(tried, key=lambda factor: tried[factor])
    assert results(grid)["rows"][0]["factor"] == pytest.approx(float(best))
    assert "/rates/" in COMMANDS[0]
    assert "train.seed=1000" in COMMANDS[0]


def test_what_has_ended_is_left_alone(made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    grid, _ = made
    before = results(grid)

    def fail(*_: object) -> int:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(Crew, "_call", fail)
    monkeypatch.setattr("dsctool.engine.run_cost.run_costs", fail)
    result = ablate(grid, "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    assert results(grid) == before


def test_rows_can_be_compared_with_any_of_them(made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    grid, _ = made
    before = results(grid)
    monkeypatch.setattr(Crew, "_call", lambda *_: pytest.fail("nothing is left to run"))
    result = ablate(grid, "--seeds", "0,1", "--reference", "mask")
    assert result.exit_code == 0, result.output
    assert "minus mask, with intervals of 95 %:" in result.output
    after = results(grid)
    assert after["reference"] == "mask"
    there, back = (
        content["rows"][place]["estimates"]["differences"]["segm"]["AP"] for content, place in ((before, 1), (after, 0))
    )
    assert back["value"] == pytest.approx(-there["value"])
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
    assert ablate(grid, "--seeds", "0,1").exit_code == 0
    assert results(grid) == before


def test_a_lost_part_is_made_again(made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    grid, _ = made
    before = results(grid)
    lost = grid.parent / "out/runs/mask/seed-1"
    shutil.rmtree(lost)
    (grid.parent / "out/runs/htc/seed-0/measured.npz").write_bytes(b"cut")
    ran: list[str] = []
    monkeypatch.setattr(Crew, "_call", lambda *call: ran.append(call[2].words[0]) or in_this_process(*call))
    assert ablate(grid, "--seeds", "0,1").exit_code == 0
    assert ran == ["eval"]
    assert results(grid) == before


def test_weights_may_be_removed_and_numbers_stay(
    made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grid, _ = made
    before = results(grid)
    shutil.copytree(grid.parent / "scenes", tmp_path / "scenes")
    shutil.copytree(grid.parent / "out", tmp_path / "out")
    copy = tmp_path / grid.name
    copy.write_text(GRID)
    (tmp_path / "out/ablation.json").write_text(json.dumps({"data": str((tmp_path / "scenes").resolve())}))
    for path in [*tmp_path.rglob("*.pt"), *(tmp_path / "out").rglob("predictions.json")]:
        path.unlink()

    def fail(*_: object) -> int:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(Crew, "_call", fail)
    assert ablate(copy, "--seeds", "0,1").exit_code == 0
    after = results(copy)
    for row, same in zip(after["rows"], before["rows"], strict=True):
        assert row["estimates"] == same["estimates"]
        assert row["time"] is None


def test_what_was_measured_of_other_weights_or_otherwise_is_measured_again(
    made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, _ = made
    ran: list[str] = []
    monkeypatch.setattr(Crew, "_call", lambda *call: ran.append(call[1].name) or in_this_process(*call))
    weights = grid.parent / "out/runs/htc/seed-1/last.pt"
    later = max(path.stat().st_mtime for path in grid.parent.glob("out/runs/*/seed-1/stats.json")) + 0.001
    os.utime(weights, (later, later))
    assert ablate(grid, "--seeds", "0,1", "--no-times").exit_code == 0
    assert ran == ["htc, seed 1", "mask, seed 1"]
    ran.clear()
    before = results(grid)
    try:
        grid.write_text(GRID.replace("postprocess.nms=mask", "postprocess.score_threshold=0.9"))
        assert ablate(grid, "--seeds", "0,1", "--no-times").exit_code == 0
        assert ran == ["mask, seed 0", "mask, seed 1"]
        assert results(grid)["rows"][1]["changes"] == ["postprocess.score_threshold=0.9"]
    finally:
        grid.write_text(GRID)
        assert ablate(grid, "--seeds", "0,1", "--no-times").exit_code == 0
    assert results(grid) == before


def test_a_failed_run_is_named_and_the_rest_reported(
    made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, _ = made

    def broken(crew: Crew, job: Job, step: Step, device: str) -> int:
        job.log.write_text("dsctool: error: the reason\n")
        return 1

    monkeypatch.setattr(Crew, "_call", broken)
    monkeypatch.setattr("dsctool.engine.run_cost.run_costs", lambda configs, *_: (RunCost(2, 3, 0.5) for _ in configs))
    result = ablate(grid, "--seeds", "0,1,2", "--no-times")
    assert result.exit_code == 1
    assert "htc, seed 2: failed: `dsctool train" in result.output
    assert "the reason" in result.output
    assert "2 runs have failed, and the same command tries them again: htc, seed 2, mask, seed 2" in result.output
    assert results(grid)["rows"][0]["estimates"]["seeds"] == [0, 1]


def test_other_runs_are_not_taken_for_these(made: tuple[Path, Result], tmp_path: Path) -> None:
    grid, _ = made
    result = ablate(grid, "train.batch_size=2", "--seeds", "0")
    assert result.exit_code == 1
    assert "x0.5: is a run with train.batch_size=1, but the grid says 2" in result.output
    words = ["ablate", str(grid), "--data", str(tmp_path), "--output", str(grid.parent / "out")]
    assert "has runs on other data" in CliRunner().invoke(app, words).output
    (tmp_path / "file").touch()
    words = ["ablate", str(grid), "--data", str(grid.parent / "scenes"), "--output", str(tmp_path)]
    assert "no ablation is on record" in CliRunner().invoke(app, words).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0,,1"], "are no whole numbers"),
        (["--seeds", "1,1"], "one appears twice"),
        (["--only", "nothing"], "no row nothing"),
        (["--reference", "nothing"], "no row nothing"),
        (["data.val_share=0.5"], "row htc: data.val_share"),
    ],
)
def test_wrong_words(tmp_path: Path, words: list[str], message: str) -> None:
    grid = tmp_path / "try.yaml"
    grid.write_text(GRID)
    result = ablate(grid, *words)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_grids_are_listed() -> None:
    result = CliRunner().invoke(app, ["configs", "grids"])
    assert "guidance_tiny" in result.output
    assert "htc, fast_dsc, dsc" in result.output
