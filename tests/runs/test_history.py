"""What is read back of a run's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsctool.errors import DataError
from dsctool.runs.history import best_text, read_history
from dsctool.runs.losses import explain_losses


def write(path: Path, *lines: dict[str, object], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def test_the_first_of_highest_ap_is_the_best_and_half_a_line_is_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.jsonl",
        {
            "kind": "train",
            "step": 2,
            "epoch": 0.5,
            "elapsed": 1.0,
            "loss": 2.0,
            "loss_rpn_cls": 1.5,
            "s0.loss_cls": 0.5,
        },
        {"kind": "eval", "step": 4, "epoch": 1.0, "elapsed": 2.0, "bbox_AP": 0.5, "segm_AP": 0.2},
        {"kind": "eval", "step": 8, "epoch": 2.0, "elapsed": 4.5, "bbox_AP": 0.4, "segm_AP": 0.3},
        {"kind": "eval", "step": 9, "epoch": 2.25, "elapsed": 5.5, "bbox_AP": 0.9, "segm_AP": 0.3},
        tail='{"kind": "train", "step": 10',
    )
    history = read_history(path)
    assert history.best == history.evaluations[1], "masks decide, and an equal one is no better"
    assert best_text(history) == "mask AP 0.3000 in epoch 2"
    assert (history.step, history.epoch, history.seconds) == (9, 2.25, 5.5)
    assert history.losses() == ["loss_rpn_cls", "s0.loss_cls"]


def test_nothing_yet(tmp_path: Path) -> None:
    history = read_history(tmp_path / "metrics.jsonl")
    assert (history.step, history.seconds, history.best, history.losses()) == (0, None, None, [])
    assert best_text(history) == "never evaluated"


@pytest.mark.parametrize("tail", ["[]\n", '{"kind": "other", "step": 1, "epoch": 1}\n', "nonsense\n"])
def test_what_is_no_line_of_a_run(tmp_path: Path, tail: str) -> None:
    path = write(tmp_path / "metrics.jsonl", {"kind": "train", "step": 1, "epoch": 1}, tail=tail)
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 is no line of a run's metrics"):
        read_history(path)


def test_losses_are_explained_once() -> None:
    names = ["loss_rpn_cls", "s0.loss_cls", "s0.loss_mask", "s1.loss_cls", "s1.loss_mask", "loss_new"]
    explained = explain_losses(names)
    assert [name for name, _ in explained] == [
        "loss",
        "s0. to s1.",
        "loss_rpn_cls",
        "loss_cls",
        "loss_mask",
        "loss_new",
    ]
    assert dict(explained)["loss_new"] == "a loss of this model"
