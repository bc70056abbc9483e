"""How long runs are, what they measure on and with: each also when they are killed and go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dsctool.config.schema import Config
from dsctool.engine import trainer
from dsctool.engine.page import Page
from dsctool.engine.preflight import TRIED
from dsctool.engine.setup import prepare
from dsctool.engine.signals import RunInterruptedError
from dsctool.engine.val_losses import validation_losses
from dsctool.errors import ConfigError, DataError
from dsctool.evaluation.comparison import Comparison
from dsctool.interop.checkpoint import load_checkpoint
from dsctool.runs.history import read_history
from dsctool.runs.state import read_state
from tests.engine.fakes import FakeDetector, tiny_config
from tests.engine.test_trainer import TIMES, assert_same, kill_at, lines


def recorded(folder: Path) -> list[dict[str, float]]:
    """All numbers but times."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines(folder)]


def with_data(config: Config, **data: object) -> Config:
    values = config.model_dump(mode="json")
    return Config.model_validate(values | {"data": values["data"] | data})


@pytest.mark.parametrize(("call", "during"), [(3, "losses"), (5, "losses"), (6, "losses"), (TRIED + 6, "detect")])
def test_a_length_in_steps_and_killed(tmp_path: Path, run: Callable[..., str], call: int, during: str) -> None:
    """Six steps of epochs of four: in each epoch, at the very end, and in the evaluation after it."""
    config = tiny_config(steps=6, epochs=1, accumulate=1)
    shown = run(tmp_path / "whole", config)
    assert "6 steps (train.steps) in 2 epochs, of 4 steps each" in shown
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, prepare=kill_at(call, during=during))
    run(tmp_path / "cut", config, resume=True)
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "cut") if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(tmp_path / "cut") if line["kind"] == "eval"] == [4, 6]
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))


def test_steps_can_become_epochs_and_more(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "whole", tiny_config(epochs=2))
    run(tmp_path / "part", tiny_config(steps=3))
    assert recorded(tmp_path / "part")[-1]["step"] == 3
    again = run(tmp_path / "part", tiny_config(steps=3), resume=True)
    assert "finished         3 steps" in again, "nothing is left to do"
    run(tmp_path / "part", tiny_config(epochs=2), resume=True)
    whole, part = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "part"))
    assert all(torch.equal(value, part.model[name]) for name, value in whole.model.items())


def test_a_straight_line_ends_with_the_steps(tmp_path: Path, run: Callable[..., str]) -> None:
    config = tiny_config(steps=5)
    optim = config.optim.model_copy(update={"decay": "linear", "warmup_steps": 0})
    run(tmp_path, config.model_copy(update={"optim": optim}))
    rates = [line["lr"] for line in lines(tmp_path) if line["kind"] == "train"]
    assert rates == pytest.approx([0.5 * 2 / 16 * (1 - step / 5) for step in range(5)])


@pytest.mark.parametrize("call", [2, 12])
def test_early_stopping_and_killed(tmp_path: Path, run: Callable[..., str], call: int) -> None:
    """The fake never gets better: the first evaluation is the best, and two more are waited for."""
    config = tiny_config(epochs=9, early_stop=2, log_interval=5)
    shown = run(tmp_path / "whole", config)
    assert "stopped early    no higher AP in 2 evaluations (train.early_stop=2)" in shown
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, prepare=kill_at(call))
    assert read_state(tmp_path / "cut").word == "stopped"  # type: ignore[union-attr]
    run(tmp_path / "cut", config, resume=True)
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        assert [line["epoch"] for line in lines(folder) if line["kind"] == "eval"] == [1, 2, 3]
        assert read_state(folder).word == "finished"  # type: ignore[union-attr]
    steps = [line["step"] for line in lines(tmp_path / "whole") if line["kind"] == "train"]
    assert steps == [5, 10, 12], "also what is left of the last interval"
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))
    rows = len(recorded(tmp_path / "cut"))
    assert "stopped early" in run(tmp_path / "cut", config, resume=True)
    assert len(recorded(tmp_path / "cut")) == rows, "nothing was done again"


def test_more_patience_on_resume(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, tiny_config(epochs=5, early_stop=1))
    assert read_history(tmp_path / "metrics.jsonl").epoch == 2
    run(tmp_path, tiny_config(epochs=5, early_stop=3), resume=True)
    history = read_history(tmp_path / "metrics.jsonl")
    assert history.epoch == 4
    assert history.best is history.evaluations[0]
    state = load_checkpoint(tmp_path / "last.pt").training
    assert state is not None
    assert (state.best_epoch, state.stale) == (1, 3)


@pytest.mark.parametrize("key", ["early_stop", "val_losses"])
def test_evaluations_that_never_come_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} looks at evaluations, and eval_interval=0 has none"):
        tiny_config(eval_interval=0, **{key: True})


def test_time_goes_on_where_the_run_was_stopped(tmp_path: Path, run: Callable[..., str]) -> None:
    with pytest.raises(RunInterruptedError):
        run(tmp_path, prepare=kill_at(5))
    before = load_checkpoint(tmp_path / "last.pt").training
    assert before is not None
    assert before.seconds > 0
    run(tmp_path, resume=True)
    elapsed = [line["elapsed"] for line in lines(tmp_path)]
    assert elapsed == sorted(elapsed)
    after = load_checkpoint(tmp_path / "last.pt").training
    assert after is not None
    assert after.seconds > before.seconds
    assert read_history(tmp_path / "metrics.jsonl").seconds == elapsed[-1]


# --- validation losses ------------------------------------------------------------------------------


def test_validation_losses_change_nothing(tmp_path: Path, run: Callable[..., str]) -> None:
    """Weights, statistics of batch norms and the noise of training are as without them; killed and gone on too."""
    config = tiny_config(val_losses=True)
    run(tmp_path / "without")
    run(tmp_path / "with", config)
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, prepare=kill_at(7))
    run(tmp_path / "cut", config, resume=True)
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "with")
    assert_same(load_checkpoint(tmp_path / "with/last.pt"), load_checkpoint(tmp_path / "without/last.pt"))
    evaluations = [line for line in lines(tmp_path / "with") if line["kind"] == "eval"]
    for line in evaluations:
        assert line["val_loss"] == pytest.approx(line["val_loss_rpn_cls"] + line["val_s0.loss_mask"])
    assert evaluations[0]["val_loss"] != evaluations[1]["val_loss"]


@pytest.mark.parametrize("name", ["fast_dsc_tiny", "cascade_mask_rcnn_tiny"])
def test_validation_losses_of_models(synthetic_root: Path, name: str) -> None:
    """Twice the same, and every buffer and parameter as it was; stuff maps are drawn where a branch learns them."""
    from dsctool.config.loading import load_config
    from tests.models.tiny import SMALL

    small = [word for word in SMALL if not word.startswith("model.num_classes")]
    sizes = ["data.train_resize.short_sides=[48]", "data.test_resize.short_sides=[48]"]
    words = [*small, *sizes, "data.workers=0", "train.val_losses=true", "data.tta={short_sides: [48]}", "train.ema=0.9"]
    setup = prepare(load_config(name, words), data=synthetic_root, device=torch.device("cpu"))
    before = {key: value.clone() for key, value in setup.model.state_dict().items()}
    state = torch.get_rng_state()

    def first(total: int, items: Iterator[Any]) -> Iterator[Any]:
        assert total == 4
        yield from items

    losses = validation_losses(setup, watch=first)
    assert losses == validation_losses(setup, watch=first)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in setup.model.state_dict().items())
    assert setup.model.training
    assert losses["val_loss"] == pytest.approx(sum(value for key, value in losses.items() if key != "val_loss"))
    assert ("val_loss_semantic_seg" in losses) == (name != "cascade_mask_rcnn_tiny")


# --- validation images ------------------------------------------------------------------------------


@pytest.fixture
def without_val(tmp_path: Path, synthetic_root: Path) -> Path:
    """The training split alone."""
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    shutil.copy(synthetic_root / "annotations/instances_train.json", data / "annotations")
    (data / "train").symlink_to(synthetic_root / "train")
    return data


def test_without_validation_images_two_ways_are_named(
    tmp_path: Path, run: Callable[..., str], without_val: Path
) -> None:
    with pytest.raises(DataError, match=r"data\.val_share=0\.2 .*train\.eval_interval=0") as caught:
        run(tmp_path / "run", data=without_val)
    assert "no annotations/instances_val*.json" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_share_is_held_out(tmp_path: Path, run: Callable[..., str], without_val: Path) -> None:
    """Also after the run was killed; nothing of it is trained on."""
    config = with_data(tiny_config(val_losses=True), val_share=0.25)
    shown = run(tmp_path / "whole", config, data=without_val)
    assert "2 of 8 images are held out to measure on, the others are trained on (data.val_share=0.25)" in shown
    assert "6 steps = 2 epochs x 3" in shown
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, data=without_val, prepare=kill_at(4))
    run(tmp_path / "cut", config, data=without_val, resume=True)
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")
    setup = prepare(config, data=without_val, device=torch.device("cpu"), build=lambda c, *, num_classes: Blank())
    ids = [
        {each.image_info(index).id for index in range(len(each))}
        for each in (setup.data.train_set, setup.data.val.dataset)  # type: ignore[union-attr]
    ]
    assert ids[0] & ids[1] == set()
    assert len(ids[0] | ids[1]) == 8
    assert {info.id for info in setup.data.val.ground_truth.images} == ids[1]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"data\.val_share: 0\.25 in the run, 0\.5 now"):
        run(tmp_path / "cut", with_data(config, val_share=0.5), data=without_val, resume=True)


class Blank(torch.nn.Module):
    """Finds nothing."""

    has_masks = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def detect(self, images: object, sizes: object, original_sizes: list[tuple[int, int]], **_: object) -> list[Any]:
        from dsctool.structures import Detections

        nothing = torch.zeros(0)
        return [Detections(nothing.reshape(0, 4), nothing, nothing.long(), None, size) for size in original_sizes]


# --- what is said -----------------------------------------------------------------------------------


def test_a_warm_up_longer_than_the_run_is_advised_on(tmp_path: Path, run: Callable[..., str]) -> None:
    config = tiny_config(steps=20)
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"warmup_steps": 30})})
    shown = run(tmp_path, config)
    assert "the warm-up takes 30 steps and the run 20: the learning rate ends at " in shown
    assert "Set optim.warmup_steps=2 (a tenth of the run), or train longer (train.epochs=16)" in shown


class Seen:
    """A page that takes down when it is asked for what, and what the run says of itself then."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def draw(self, folder: Path, comparison: Comparison, images: Path, *, step: int) -> None:
        assert images.name == "val"
        self.calls.append(("draw", step))

    def write(self, folder: Path) -> None:
        self.calls.append(("write", read_state(folder).word))  # type: ignore[union-attr]


def test_the_page_is_written_as_the_run_goes(tmp_path: Path, synthetic_root: Path) -> None:
    def train(page: Page, *, resume: bool = False, kill: int | None = None) -> None:
        def build(config: Config, *, num_classes: int) -> Any:
            model = FakeDetector(num_classes)
            if kill is not None:
                kill_at(kill)(model)
            return model

        console = Console(quiet=True)
        trainer.train(
            tiny_config(epochs=3), data=synthetic_root, output=tmp_path / "run", resume=resume, device="cpu",
            console=console, build=build, page=page,
        )  # fmt: skip

    first, second = Seen(), Seen()
    with pytest.raises(RunInterruptedError):
        train(first, kill=6)
    assert first.calls == [("draw", 4), ("write", "running"), ("write", "stopped")]
    train(second, resume=True)
    assert second.calls == [("draw", 8), ("write", "running"), ("draw", 12), ("write", "finished")]
