"""What whole runs cost, from a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.data.synthetic.dataset import synthesize
from dsctool.engine import dryrun
from dsctool.engine.run_cost import RunCost, run_cost, run_costs
from dsctool.errors import DataError

SMALL = ["data.train_resize.short_sides=[64]", "data.test_resize.short_sides=[64]", "data.workers=0"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cost") / "scenes"
    synthesize(root, images=5, val_images=1, seed=0, size=(64, 64))
    return root


def config(*words: str) -> Config:
    return load_config("htc_tiny", [*SMALL, "optim.warmup_steps=1", "train.batch_size=2", *words])


def test_a_run(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dryrun, "ENOUGH", 0.0)
    cost = run_cost(config("train.epochs=7"), scenes, "cpu")
    assert (cost.steps, cost.epoch) == (21, 3)
    assert cost.step_time > 0
    assert cost.seconds == 21 * cost.step_time


def test_a_shorter_run_of_the_same() -> None:
    cost = RunCost(steps=21, epoch=3, step_time=0.5)
    assert cost.shortened(config("train.epochs=2")) == 3.0
    assert cost.shortened(config("train.steps=10")) == 5.0


def test_what_is_wrong_is_named(scenes: Path) -> None:
    configs = {"row bad": config("data.train.weights=gone.csv")}
    with pytest.raises(DataError, match=r"^row bad: .*gone\.csv: no such file"):
        list(run_costs(configs, scenes, ["cpu"]))
