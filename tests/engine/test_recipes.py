"""Runs with everything that is off in published recipes: they say so, and resuming them changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsctool.config.schema import Config
from dsctool.engine.signals import RunInterruptedError
from dsctool.interop.checkpoint import load_checkpoint
from tests.engine.fakes import tiny_config
from tests.engine.test_trainer import kill_at, lines


def recipe(kind: str, **data: object) -> Config:
    """Of a detector with masks, as far as the data are concerned; the fake one needs none."""
    plain = tiny_config(eval_interval=0).model_dump()
    plain["model"]["cascade"] = {"kind": "htc"}
    plain["data"] |= {"semantic": "instances", "color": {}, "repeat_factor": 1.0, "group_by_aspect": True, **data}
    plain["optim"] |= {
        "kind": kind, "lr": 0.05, "decay": "cosine", "decay_norms": False, "weight_decay": 0.1, "layer_decay": 0.5,
        "lr_factors": {"backbone": 0.1},
    }  # fmt: skip
    return Config.model_validate(plain)


RECIPES = [
    (3, "sgd", {"jitter": {"size": 64, "scale": (0.5, 1.5)}, "copy_paste": {"probability": 0.7}}),
    (8, "adamw", {"crop": {"size": 40}, "copy_paste": {}}),
]


@pytest.mark.parametrize(("call", "kind", "data"), RECIPES)
def test_resuming_is_as_never_having_stopped(
    tmp_path: Path, run: Callable[..., str], call: int, kind: str, data: dict[str, object]
) -> None:
    config = recipe(kind, **data)
    run(tmp_path / "whole", config)
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, prepare=kill_at(call))
    run(tmp_path / "cut", config, resume=True)
    whole, cut = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert whole.training is not None
    assert cut.training is not None
    assert all(torch.equal(value, cut.model[name]) for name, value in whole.model.items())
    groups = [state.optimizer["param_groups"] for state in (whole.training, cut.training)]
    assert groups[0] == groups[1]
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert len(losses[0]) > 8, "more steps than with every image once"


def test_a_run_says_what_is_not_as_published(tmp_path: Path, run: Callable[..., str], synthetic_root: Path) -> None:
    (tmp_path / "data").mkdir()
    for each in ("annotations", "train", "val"):
        (tmp_path / "data" / each).symlink_to(synthetic_root / each)
    (tmp_path / "data" / "often.json").write_text('{"000001.jpg": 3}')
    config = recipe("sgd", jitter={"size": 64}, copy_paste={}, train={"weights": "often.json"})
    shown = " ".join(run(tmp_path / "run", config, data=tmp_path / "data").split())
    assert re.search(r" sampling [12]\d images an epoch, 1\.?\d* to [3-9]\S* of each image ", shown)
    assert "(repeat_factor 1, often.json)" in shown
    assert "jitter (scale 0.1 to 2, size 64, min_visible 0), color (brightness 0.2" in shown
    assert "copy_paste (probability 0.5, instances 1 to 20, min_visible 0.05)" in shown
    assert "then in half a cosine to 0" in shown
    assert "weight decay 0 for " in shown
    assert "rate factors" not in shown, "the fake one has none of the parts"
    rates = [line["lr"] for line in lines(tmp_path / "run") if line["kind"] == "train"]
    steps, base = len(rates), 0.05 * 2 / 16
    assert rates[5:] == pytest.approx([base * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(5, steps)])


def test_a_published_run_says_nothing_of_it(tmp_path: Path, run: Callable[..., str]) -> None:
    shown = run(tmp_path / "run")
    assert not any(name in shown for name in ("sampling", "augmentation", "rate factors", "weight decay"))
