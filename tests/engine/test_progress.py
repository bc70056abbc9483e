"""What a run shows, on a terminal and off it."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from dsctool.engine import progress as progress_module
from dsctool.engine.progress import WIDTH, Journal, Pace, RunProgress, counting, duration


def test_pace_counts_steps_in_its_window_only() -> None:
    times = iter([0.0, 10.0, 11.0, 13.0, 63.0])
    pace = Pace(window=2, clock=lambda: next(times))
    for _ in range(3):
        pace.step()
    assert pace.step_time == pytest.approx(1.5)
    pace.evaluated()
    assert pace.eta(steps=10, evaluations=2) == pytest.approx(15.0 + 100.0)


def test_duration() -> None:
    assert duration(3725.4) == "1:02:05"


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_reach_the_log_and_only_plain_output(tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    journal = Journal(Console(file=out, force_terminal=terminal, width=40), tmp_path / "train.log")
    losses = {"loss_rpn_cls": 0.5, "s0.loss_mask": 1.0}
    with RunProgress(journal, steps=4, done=2) as progress:
        progress.step(epoch="epoch 2/2")
        progress.numbers(step=3, epoch="epoch 2/2", losses=losses, rate=0.01, speed=1.5, memory=2.0, eta=60)
    journal.close()
    logged = (tmp_path / "train.log").read_text()
    assert "step 3/4" in logged
    assert "s0.loss_mask 1.0000" in logged
    assert "loss 1.5000" in logged
    if not terminal:
        shown = out.getvalue().splitlines()
        assert all(line in logged for line in shown), "not wrapped at the console's width"
        assert shown[-2:] == [
            "epoch 2/2  step 3/4  lr 0.01  loss 1.5000  1.50 img/s  2.0 GiB  0:01:00 left",
            "  loss_rpn_cls 0.5000  s0.loss_mask 1.0000",
        ]
        assert max(map(len, shown)) <= WIDTH


def test_counted_work_off_a_terminal_is_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0, 20.0, 40.0, 50.0])  # entered, then four images
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(times))
    out = io.StringIO()
    with counting(Console(file=out, width=10)) as count:
        for done in range(1, 5):
            count("[train]", done, 8)
    assert out.getvalue() == "[train]: 3/8, 0:01:15 left\n"


def test_counted_work_on_a_terminal_is_a_bar() -> None:
    out, threads = io.StringIO(), threading.active_count()
    with counting(Console(file=out, force_terminal=True, width=80)) as count:
        count("train", 1, 2)
        count("train", 2, 2)
        assert threading.active_count() == threads  # with another one, no work is shared out among processes
    assert "2/2" in out.getvalue()
