"""Numbers on disk: complete lines, none twice after a resume."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from dsctool.engine import trackers
from dsctool.engine.signals import RunInterruptedError
from dsctool.engine.trackers import JsonLines, open_trackers
from dsctool.errors import ConfigError
from dsctool.interop.checkpoint import TrainingState
from tests.engine.fakes import tiny_config
from tests.engine.test_trainer import kill_at


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_per_call(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path / "metrics.jsonl")
    tracker.log("train", step=5, epoch=0.5, elapsed=2.51, numbers={"lr": 0.01, "loss_rpn_cls": 1.5})
    (line,) = read(tmp_path / "metrics.jsonl")
    assert time.time() - 60 < line.pop("time") < time.time() + 1  # type: ignore[operator]
    assert line == {"kind": "train", "step": 5, "epoch": 0.5, "elapsed": 2.5, "lr": 0.01, "loss_rpn_cls": 1.5}
    tracker.close()


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 2}\n{"kind": "train", "step": 4}\n{"kind": "tra')
    tracker = JsonLines(path, resumed=TrainingState(step=2, epoch=0, batch=2, optimizer={}))
    tracker.log("train", step=4, epoch=1, elapsed=1, numbers={})
    tracker.close()
    assert [line["step"] for line in read(path)] == [2, 4]


@pytest.mark.parametrize(("batch", "kinds"), [(4, ["train"]), (0, ["train", "eval"])])
def test_an_evaluation_is_kept_only_if_the_resumed_run_is_past_it(tmp_path: Path, batch: int, kinds: list[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 4}\n{"kind": "eval", "step": 4}\n')
    JsonLines(path, resumed=TrainingState(step=4, epoch=1, batch=batch, optimizer={})).close()
    assert [line["kind"] for line in read(path)] == kinds


def test_tensorboard_where_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for tracker in open_trackers(tmp_path, tiny_config(), resumed=None):
        tracker.log("train", step=1, epoch=1, elapsed=1, numbers={"lr": 0.1})
        tracker.close()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert (tmp_path / "metrics.jsonl").exists()


FAKE = """
calls = []

class Run:
    def log(self, data, step):
        calls.append(("log", data, step))
    def finish(self):
        calls.append(("finish",))

def init(**given):
    calls.append(("init", given))
    return Run()
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that takes down what is asked of it."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    return import_module("wandb")


def test_weights_and_biases_where_asked_for(tmp_path: Path, wandb: ModuleType, run: Callable[..., str]) -> None:
    """A run that was killed goes on as the same one, with all numbers of ``metrics.jsonl``, each at its step."""
    config = tiny_config(wandb="crowds")
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "mine", config, prepare=kill_at(3))
    assert wandb.calls[-1] == ("finish",)
    run(tmp_path / "mine", config, resume=True)
    first, second = (call[1] for call in wandb.calls if call[0] == "init")
    assert (first["project"], first["name"], first["resume"]) == ("crowds", "mine", "allow")
    assert first["id"] == second["id"]
    assert first["config"]["train"]["wandb"] == "crowds"
    logged = [(call[2], call[1]) for call in wandb.calls if call[0] == "log"]
    for line, (step, numbers) in zip(read(tmp_path / "mine/metrics.jsonl"), logged, strict=True):
        names = line.keys() - {"kind", "step", "epoch", "time", "elapsed"}
        assert {name: line[name] for name in names} == {name: numbers[f"{line['kind']}/{name}"] for name in names}
        assert step == line["step"]
    run(tmp_path / "other", config)
    assert [call[1]["id"] for call in wandb.calls if call[0] == "init"][-1] != first["id"]


def test_weights_and_biases_is_off_unless_asked_for(tmp_path: Path, wandb: ModuleType) -> None:
    for tracker in open_trackers(tmp_path, tiny_config(), resumed=None):
        tracker.close()
    assert wandb.calls == []


def test_weights_and_biases_that_is_not_installed(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.wandb=crowds, but wandb is not installed: pip install"):
        run(tmp_path / "run", tiny_config(wandb="crowds"))
    assert not (tmp_path / "run").exists()
