"""Numbers on disk: complete lines, none twice after a resume."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dsctool.engine.trackers import JsonLines, open_trackers
from dsctool.interop.checkpoint import TrainingState
from tests.engine.fakes import tiny_config


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
    trackers = open_trackers(tmp_path, tiny_config(), resumed=None)
    for tracker in trackers:
        tracker.log("train", step=1, epoch=1, elapsed=1, numbers={"lr": 0.1})
        tracker.close()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert (tmp_path / "metrics.jsonl").exists()
