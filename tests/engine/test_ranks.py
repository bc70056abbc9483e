"""Runs of several processes, as each of them sees its own: no process group is needed for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsctool.data.samplers import Ranks
from dsctool.errors import ConfigError
from tests.engine.fakes import FakeDetector, tiny_config


def test_a_process_that_is_not_the_first_writes_and_shows_nothing(tmp_path: Path, run: Callable[..., str]) -> None:
    assert run(tmp_path / "run", ranks=Ranks(1, 2)) == ""
    assert not (tmp_path / "run").exists()


def test_a_process_may_come_when_the_first_has_written(tmp_path: Path, run: Callable[..., str]) -> None:
    (tmp_path / "config.yaml").touch()
    assert run(tmp_path, ranks=Ranks(1, 2)) == ""
    with pytest.raises(ConfigError, match="exists already"):
        run(tmp_path, ranks=Ranks(0, 2))


def test_the_first_of_two_processes_says_for_how_many_images_it_steps(tmp_path: Path, run: Callable[..., str]) -> None:
    shown = run(tmp_path / "run", tiny_config(), ranks=Ranks(0, 2))
    assert "4 images = batch_size 2 x accumulate 1 x 2 processes" in shown
    assert "0.125 = 0.5 x 4 / 16" in shown
    assert "4 steps = 2 epochs x 2" in shown


def test_processes_take_as_many_steps_and_sample_apart(tmp_path: Path, run: Callable[..., str]) -> None:
    calls, states = [], []

    def watch(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            calls[-1] = number
            states.append(torch.get_rng_state())

        calls.append(0)
        model.on_losses = hook

    for rank in range(3):
        run(tmp_path / str(rank), tiny_config(batch_size=1), ranks=Ranks(rank, 3), prepare=watch)
    assert calls == [6, 6, 6]
    assert len({tuple(state.tolist()) for state in states}) == 18
