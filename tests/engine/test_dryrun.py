"""What a rehearsal finds, with memory enough and without, and what it says would help."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config
from dsctool.engine import dryrun, savings
from dsctool.engine.dryrun import Cost, rehearse
from dsctool.engine.savings import try_savings
from dsctool.errors import OutOfMemoryError
from tests.e2e.test_train import SMALL


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("cascade_mask_rcnn_tiny", [*SMALL, "data.workers=0"])


def test_the_first_step_does_not_count(config: Config, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only steps move: by 50 s for the first one, and then by 1 s."""
    now, taken = [0.0], []
    take = dryrun.step

    def step(*args: object, **kwargs: object) -> object:
        now[0] += 1.0 if taken else 50.0
        taken.append(kwargs["number"])
        return take(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(dryrun, "step", step)
    monkeypatch.setattr(dryrun.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(dryrun, "Pace", lambda: dryrun_pace(now))
    found = rehearse(config, data=synthetic_root, device="cpu")
    assert found.cost is not None
    assert (found.cost.step_time, found.cost.steps) == (1.0, 6)
    assert taken == list(range(6))
    assert found.facts["time"].startswith("1.00 s per step")
    assert sum(found.cost.losses.values()) == pytest.approx(float(found.facts["loss"].split()[0]), abs=1e-4)
    assert found.facts["memory"].endswith("were free")
    taken.clear()
    monkeypatch.setattr(dryrun, "ENOUGH", 1.5)
    assert rehearse(config, data=synthetic_root, device="cpu").cost.steps == 3  # type: ignore[union-attr]


def dryrun_pace(now: list[float]) -> object:
    from dsctool.engine.progress import Pace

    return Pace(clock=lambda: now[0])


def test_a_shortage_is_a_finding_and_leaves_nothing_behind(
    config: Config, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*args: object, **kwargs: object) -> None:
        raise OutOfMemoryError("out of memory while training on 7 instances")

    monkeypatch.setattr(dryrun, "step", step)
    found = rehearse(config, data=synthetic_root, device="cpu")
    assert found.cost is None
    assert str(found.shortage) == "out of memory while training on 7 instances"
    assert found.shortage is not None
    assert found.shortage.__traceback__ is None
    assert found.shortage.__cause__ is None
    assert found.facts["memory"].startswith("not enough")
    assert "time" not in found.facts


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [],
            [
                ["train.checkpoint_activations=true"],
                ["train.masks_at_once=64"],
                ["train.batch_size=1", "train.accumulate=2"],
                ["train.precision=bfloat16"],
                ["data.train_resize.short_sides=[48]", "data.train_resize.long_side=1000"],
            ],
        ),
        (
            ["train.batch_size=3", "train.accumulate=2", "train.checkpoint_activations=[cascade]"],
            [
                ["train.checkpoint_activations=true"],
                ["train.masks_at_once=64"],
                ["train.batch_size=1", "train.accumulate=6"],
                ["train.precision=bfloat16"],
                ["data.train_resize.short_sides=[48]", "data.train_resize.long_side=1000"],
            ],
        ),
        (
            [
                "train.batch_size=1",
                "train.checkpoint_activations=true",
                "train.masks_at_once=9",
                "train.precision=float16",
            ],
            [["data.train_resize.short_sides=[48]", "data.train_resize.long_side=1000"]],
        ),
    ],
)
def test_what_is_tried(config: Config, words: list[str], expected: list[list[str]]) -> None:
    given = override_config(config, [*words, "data.train_resize.long_side=1333"])
    found = [list(words) for words in savings.savings(given)]
    assert found == (expected if len(expected) == 1 else [*expected, [word for each in expected for word in each]])
    for each in found:
        changed = override_config(given, each).train
        assert changed.batch_size * changed.accumulate == given.train.batch_size * given.train.accumulate


def test_every_saving_is_tried_and_a_shortage_is_no_end(config: Config, tmp_path: Path) -> None:
    cost = Cost(losses={"loss_a": 1.0}, steps=6, step_time=0.5, peak=2**30)

    def measure(config: Config, data: Path, device: str) -> Cost:
        assert (data, device) == (tmp_path, "cpu")
        if config.train.batch_size == 2:
            raise OutOfMemoryError("out of memory")
        return cost

    options = [("train.precision=bfloat16",), ("train.batch_size=1",)]
    tried = list(try_savings(config, options, data=tmp_path, device="cpu", measure=measure))
    assert [(saving.words, saving.cost) for saving in tried] == [(options[0], None), (options[1], cost)]
