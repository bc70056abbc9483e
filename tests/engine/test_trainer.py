"""Runs with a fake detector: what is written, and that resuming changes nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config
from dsctool.engine import trainer
from dsctool.engine.preflight import TRIED
from dsctool.engine.recorder import Recorder
from dsctool.engine.signals import RunInterruptedError
from dsctool.errors import DataError, TrainingError
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint
from tests.engine.fakes import Build, FakeDetector, tiny_config


def kill_at(call: int, *, during: str = "losses") -> Build:
    """A detector that gets SIGTERM in the middle of a call."""

    def prepare(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == call:
                os.kill(os.getpid(), signal.SIGTERM)

        setattr(model, f"on_{during}", hook)

    return prepare


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(left: Checkpoint, right: Checkpoint) -> None:
    assert left.model.keys() == right.model.keys()
    for name, value in left.model.items():
        assert torch.equal(value, right.model[name]), name
    assert left.training is not None
    assert right.training is not None
    assert (left.training.step, left.training.epoch, left.training.batch) == (
        right.training.step,
        right.training.epoch,
        right.training.batch,
    )
    momenta = [checkpoint.training.optimizer["state"] for checkpoint in (left, right)]  # type: ignore[union-attr]
    for index, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][index]["momentum_buffer"]), index
    assert left.training.best == right.training.best
    assert left.metrics == right.metrics


Whole = tuple[Path, Config]
TIMES = {"time", "elapsed", "data_time", "data_share", "step_time", "images_per_s", "memory"}


@pytest.fixture(scope="module", params=[1, 3], ids=["1 batch a step", "3 batches a step"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: Callable[..., str]) -> Whole:
    """A run that nothing stopped, and its configuration."""
    folder, config = tmp_path_factory.mktemp("whole"), tiny_config(accumulate=request.param)
    run(folder, config)
    return folder, config


@pytest.mark.parametrize("call", range(1, 9))
def test_resuming_is_as_never_having_stopped(tmp_path: Path, run: Callable[..., str], call: int, whole: Whole) -> None:
    """Stopped in any forward pass of two epochs of four batches, in the middle and at the end of an epoch."""
    undisturbed, config = whole
    with pytest.raises(RunInterruptedError, match=r"SIGTERM.*last\.pt.*--resume"):
        run(tmp_path / "cut", config, prepare=kill_at(call))
    run(tmp_path / "cut", config, resume=True)
    folders = undisturbed, tmp_path / "cut"
    assert_same(*(load_checkpoint(folder / "last.pt") for folder in folders))
    best = [load_checkpoint(folder / "best.pt").model for folder in folders]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())
    recorded = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in lines(folder)]
        for folder in folders
    ]
    assert recorded[0] == recorded[1]


def test_the_runs_are_not_trivially_equal(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", tiny_config(seed=1))
    weights = [load_checkpoint(tmp_path / name / "last.pt").model["head.weight"] for name in ("a", "b")]
    assert not torch.equal(*weights)


def test_stopped_during_an_evaluation(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "whole")
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", prepare=kill_at(TRIED + 2, during="detect"))
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt").training
    assert stopped is not None
    assert (stopped.step, stopped.epoch, stopped.batch) == (4, 0, 4)  # no step is lost, the evaluation is still due
    run(tmp_path / "cut", resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))
    assert [line["kind"] for line in lines(tmp_path / "cut")].count("eval") == 2


@pytest.mark.parametrize("during", ["losses", "detect"])
def test_resuming_by_tiles(tmp_path: Path, run: Callable[..., str], during: str) -> None:
    """Stopped between the windows of an image, in training and in an evaluation; with other loader processes too."""
    config = override_config(tiny_config(epochs=1), ["data.tiles={size: 120, overlap: 0.1}", "data.jitter={size: 64}"])
    calls = {"losses": 0, "detect": 0}

    def count(model: FakeDetector) -> None:
        model.on_losses = model.on_detect = lambda _: calls.update(model.calls)

    shown = run(tmp_path / "whole", config, prepare=count)
    steps = calls["losses"]
    assert " windows an epoch, " in shown
    assert steps > 2 * 4, "more than twice the steps of whole images"
    call = {"losses": 7, "detect": calls["detect"] - 2}[during]
    with pytest.raises(RunInterruptedError):
        run(tmp_path / "cut", config, prepare=kill_at(call, during=during))
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt").training
    assert stopped is not None
    assert stopped.step == {"losses": 7, "detect": steps}[during]
    run(tmp_path / "cut", override_config(config, ["data.workers=2"]), resume=True)
    whole, cut = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert_same(whole, cut)


def test_killed_without_warning(tmp_path: Path, run: Callable[..., str]) -> None:
    """As by SIGKILL: the run falls back to the last written state."""

    def crash(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == 4:
                raise RuntimeError("power cut")

        model.on_losses = hook

    config = tiny_config(checkpoint_interval=2)
    run(tmp_path / "whole", config)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", config, prepare=crash)
    run(tmp_path / "cut", config, resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))
    assert [line["step"] for line in lines(tmp_path / "cut") if line["kind"] == "train"] == list(range(1, 9))


def test_a_loader_process_that_is_killed(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch: the run stops between two steps, saved there, and goes on as if nothing had happened."""
    config = tiny_config()
    loading = config.model_copy(update={"data": config.data.model_copy(update={"workers": 1})})
    run(tmp_path / "whole", config)

    def kill(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == 5:
                (worker,) = active_children()
                os.kill(worker.pid or 0, signal.SIGKILL)

        model.on_losses = hook

    with pytest.raises(
        TrainingError, match=r"process was killed \(SIGKILL.*image \d+ \(.*data\.workers.*--resume"
    ) as caught:
        run(tmp_path / "cut", loading, prepare=kill)
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt").training
    assert stopped is not None
    assert stopped.step >= 5, "what had arrived was trained on"
    assert f"last.pt holds step {stopped.step} of 8" in str(caught.value)
    assert str(caught.value) in (tmp_path / "cut" / "train.log").read_text()
    assert active_children() == []
    run(tmp_path / "cut", config, resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
)
def test_memory_runs_out_in_a_step(tmp_path: Path, run: Callable[..., str], error: Exception) -> None:
    """Nothing of the step is kept: the run can be resumed from the state written last."""

    def prepare(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == 4:
                raise error

        model.on_losses = hook

    config = tiny_config(checkpoint_interval=2)
    run(tmp_path / "whole", config)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "cut", config, prepare=prepare)
    message = str(caught.value)
    assert message.startswith("out of GPU memory (2.00 GiB more" if str(error) else "out of memory while training on ")
    assert "image ids " in message
    assert "train.batch_size" in message
    assert "last.pt holds step 2 of 8" in message
    run(tmp_path / "cut", config, resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))


def test_memory_runs_out_in_an_evaluation(tmp_path: Path, run: Callable[..., str]) -> None:
    def prepare(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == TRIED + 2:
                raise MemoryError

        model.on_detect = hook

    with pytest.raises(
        TrainingError, match=r"out of memory while detecting in .*data\.test_resize.*last\.pt holds step 4 of 8"
    ):
        run(tmp_path / "run", prepare=prepare)


def test_data_that_go_bad_during_a_run_cost_no_step(
    tmp_path: Path, run: Callable[..., str], synthetic_root: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_root, data)

    def prepare(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == 5:
                shutil.move(data / "train", data / "away")

        model.on_losses = hook

    run(tmp_path / "whole", data=data)
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path / "cut", data=data, prepare=prepare)
    shutil.move(data / "away", data / "train")
    stopped = load_checkpoint(tmp_path / "cut" / "last.pt").training
    assert stopped is not None
    assert stopped.step == 5
    run(tmp_path / "cut", data=data, resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))


def test_what_a_run_writes_and_says(tmp_path: Path, run: Callable[..., str], synthetic_root: Path) -> None:
    config = tiny_config(accumulate=2)
    shown = run(tmp_path / "run", config)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "config.yaml", "env.json", "train.log", "metrics.jsonl", "last.pt", "best.pt",
    }  # fmt: skip
    assert load_config(tmp_path / "run" / "config.yaml") == fit_limits(
        config, instances=max(_instances(synthetic_root))
    )
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert "4 images = batch_size 2 x accumulate 2" in shown
    assert "0.125 = 0.5 x 4 / 16" in shown
    assert "4 steps = 2 epochs x 2" in shown
    assert f"8 images, {sum(_instances(synthetic_root))} instances, 6 classes" in shown
    assert shown.splitlines()[-1] in (tmp_path / "run" / "train.log").read_text()


def _instances(root: Path) -> list[int]:
    """Of every image that has any."""
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    return list(Counter(each["image_id"] for each in content["annotations"] if not each["iscrowd"]).values())


def test_metrics_lines(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "run", tiny_config(log_interval=3))
    recorded = lines(tmp_path / "run")
    training = [line for line in recorded if line["kind"] == "train"]
    assert [line["step"] for line in training] == [3, 6, 8]  # the last step always
    base = 0.5 * 2 / 16
    assert [line["lr"] for line in training] == pytest.approx(
        [base * (1 - (1 - 2 / 3) * (1 - 0.001)), base * 0.1, base * 0.1]
    )
    for line in training:
        assert line["loss"] == pytest.approx(line["loss_rpn_cls"] + line["s0.loss_mask"])
        assert line.keys() >= {"epoch", "grad_norm", "data_time", "step_time", "images_per_s"}
    evaluations = [line for line in recorded if line["kind"] == "eval"]
    assert [line["epoch"] for line in evaluations] == [1.0, 2.0]
    assert evaluations[0].keys() >= {"bbox_AP", "bbox_AR100", "step"}


@pytest.mark.parametrize(("name", "words"), [("loss_rpn_cls", "region proposals"), ("s0.loss_mask", "cascade stage 1")])
def test_a_loss_that_is_not_finite(tmp_path: Path, run: Callable[..., str], name: str, words: str) -> None:
    """It stops in the step where it appears, names itself and the images, and no weight is touched."""

    def poison(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            model.factors = {name: math.nan} if number == 6 else {}

        model.on_losses = hook

    config = tiny_config(checkpoint_interval=1)
    with pytest.raises(TrainingError, match="not finite") as caught:
        run(tmp_path / "run", config, prepare=poison)
    message = str(caught.value)
    assert f"{name} = nan ({words})" in message
    assert "image ids " in message
    assert "loss_rpn_cls" not in message or name == "loss_rpn_cls"
    saved = load_checkpoint(tmp_path / "run" / "last.pt")
    assert saved.training is not None
    assert saved.training.step == 5
    assert all(value.isfinite().all() for value in saved.model.values())
    assert message.splitlines()[0] in (tmp_path / "run" / "train.log").read_text()


def test_the_images_of_a_bad_loss_are_the_right_ones(tmp_path: Path, run: Callable[..., str]) -> None:
    seen: list[str] = []

    def poison(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            model.factors = {"s0.loss_mask": math.inf} if number == 2 else {}
            seen.append("called")

        model.on_losses = hook

    with pytest.raises(TrainingError, match="image ids ") as caught:
        run(tmp_path / "run", tiny_config(accumulate=4, batch_size=2), prepare=poison)
    ids = str(caught.value).split("image ids ")[1].split(".")[0].split(", ")
    assert len(ids) == 2  # of the second of four batches in the step, not of all
    assert len(seen) == 4


def test_a_gradient_that_is_not_finite(tmp_path: Path, run: Callable[..., str]) -> None:
    def poison(model: FakeDetector) -> None:
        model.head.weight.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(TrainingError, match=r"gradient is not finite: head\.weight; image ids"):
        run(tmp_path / "run", prepare=poison)


def test_best_is_replaced_by_strictly_better_only(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.2, 0.4, 0.3])

    def evaluation(*args: object, **kwargs: object) -> tuple[object, list[object]]:
        score = next(scores)
        stats = {"bbox": {"AP": 0.9 - score, "AP50": 0, "AP75": 0}, "segm": {"AP": score, "AP50": 0, "AP75": 0}}
        return type("Evaluation", (), {"stats": stats, "notes": []})(), None

    monkeypatch.setattr(trainer, "evaluate_detector", evaluation)
    kept = []
    save = Recorder.save

    def spy(self: Recorder, name: str, checkpoint: Checkpoint) -> None:
        save(self, name, checkpoint)  # type: ignore[arg-type]
        if name == "best.pt":
            kept.append(checkpoint.metrics["segm"]["AP"])  # type: ignore[index]

    monkeypatch.setattr(Recorder, "save", spy)
    run(tmp_path / "run", tiny_config(epochs=4))
    assert kept == [0.2, 0.4]  # masks decide; an equal score does not replace


def test_without_evaluations_the_last_is_the_best(
    tmp_path: Path, run: Callable[..., str], synthetic_root: Path
) -> None:
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    for name in ("annotations/instances_train.json", "train"):
        (data / name).symlink_to(synthetic_root / name)
    run(tmp_path / "run", tiny_config(epochs=1, eval_interval=0), data=data)  # no validation images are needed
    run(tmp_path / "run", tiny_config(epochs=2, eval_interval=0), data=data, resume=True)
    last, best = (load_checkpoint(tmp_path / "run" / name) for name in ("last.pt", "best.pt"))
    assert all(torch.equal(value, best.model[name]) for name, value in last.model.items())
    assert best.training is None


def test_a_finished_run_can_be_prolonged(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "whole", tiny_config(epochs=3))
    run(tmp_path / "cut", tiny_config(epochs=2))
    assert "finished" in run(tmp_path / "cut", tiny_config(epochs=2), resume=True)
    run(tmp_path / "cut", tiny_config(epochs=3), resume=True)
    assert_same(load_checkpoint(tmp_path / "whole" / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt"))
