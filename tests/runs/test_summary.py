"""Runs as their folders tell of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dsctool.config.dump import config_to_yaml
from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.errors import DataError
from dsctool.runs.differences import nearest_shipped, values_of, varying
from dsctool.runs.state import RunState, read_state, write_state
from dsctool.runs.summary import RunSummary, find_runs


def make_run(folder: Path, *overrides: str, word: str | None = None, epoch: float = 1.0, process: int = 0) -> Path:
    """A folder as a run leaves it, with one evaluation."""
    folder.mkdir(parents=True)
    config = fit_limits(load_config("htc_tiny", overrides), instances=30)
    (folder / "config.yaml").write_text(config_to_yaml(config))
    (folder / "env.json").write_text('{"torch": "2", "command": ["dsctool", "train", "a b"]}')
    step, times = {"step": 7, "epoch": epoch}, {"time": 1.7e9, "elapsed": 75.0}
    train = {"kind": "train", **step, **times, "lr": 0.1, "loss": 2.0, "loss_rpn_cls": 2.0, "images_per_s": 3.0}
    lines = [train, {"kind": "eval", **step, **times, "bbox_AP": 0.25, "bbox_AP50": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if word is not None:
        state = RunState.here(word, steps=70, epochs=10, reason="why")  # type: ignore[arg-type]
        write_state(folder, state if not process else RunState(word, 70, 10, "", state.host, process))  # type: ignore[arg-type]
    return folder


def ended_process() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_states(tmp_path: Path) -> None:
    words = ("running", "finished", "stopped", "failed")
    states = [RunSummary.of(make_run(tmp_path / word, word=word)).state for word in words]
    assert states == list(words), "this process is alive"
    assert RunSummary.of(make_run(tmp_path / "killed", word="running", process=ended_process())).state == "killed"
    elsewhere = make_run(tmp_path / "elsewhere")
    write_state(elsewhere, RunState("running", 70, 10, host="another", process=1))
    assert RunSummary.of(elsewhere).state == "running?"
    assert RunSummary.of(make_run(tmp_path / "old", epoch=24.0)).state == "finished", "by its numbers"
    assert RunSummary.of(make_run(tmp_path / "older")).state == "unknown"


def test_what_can_be_resumed(tmp_path: Path) -> None:
    for word, wanted in (("running", False), ("finished", False), ("stopped", True), ("failed", True)):
        folder = make_run(tmp_path / word, word=word)
        assert not RunSummary.of(folder).resumable, "without last.pt"
        (folder / "last.pt").touch()
        assert RunSummary.of(folder).resumable == wanted


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    state = RunState.here("stopped", steps=3, epochs=1, reason="SIGTERM")
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    (tmp_path / "state.json").write_text("[1]")
    with pytest.raises(DataError, match=r"state\.json: is no state of a run"):
        read_state(tmp_path)


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("a", "b/c", "b/d/e")]
    (tmp_path / "none").mkdir()
    (tmp_path / "none/config.yaml").touch()  # of something else
    assert find_runs([tmp_path]) == runs
    assert find_runs([runs[2], tmp_path / "b"]) == [runs[2], runs[1]], "each once"
    with pytest.raises(DataError, match="there is no run in it"):
        find_runs([tmp_path / "none"])
    with pytest.raises(DataError, match="does not exist"):
        find_runs([tmp_path / "other"])


def test_the_nearest_shipped_configuration() -> None:
    """Numbers that limits got from the data are no differences."""
    config = fit_limits(load_config("fast_dsc_tiny", ["optim.lr=0.5", "train.epochs=3"]), instances=400)
    nearest = nearest_shipped(config)
    assert nearest.name == "fast_dsc_tiny"
    assert {each.key: each.right for each in nearest.differences} == {"optim.lr": 0.5, "train.epochs": 3}
    assert nearest_shipped(load_config("htc_tiny")).differences == []


def test_what_varies_between_runs() -> None:
    configs = [load_config("htc_tiny", words) for words in ((), ("optim.lr=0.5",), ("model.neck.rfp={}",))]
    keys = varying(configs)
    assert "optim.lr" in keys
    assert "optim.momentum" not in keys
    assert all(key == "optim.lr" or key.startswith("model.neck.rfp") for key in keys)
    assert values_of(configs[1])["optim.lr"] == "0.5"
    assert varying(configs[:1]) == []
