"""What a run measures on the way is what its checkpoints give later.

DetectoRS, whose layers keep what they derive from their weights, and the optimisers that ship, each of which changes
weights in its own way.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from dsctool.data.synthetic.dataset import synthesize
from dsctool.interop.checkpoint import load_checkpoint
from tests.e2e.test_train import SMALL, dsctool
from tests.engine.test_trainer import TIMES

OPTIMISERS = {
    "adamw": ["optim.kind=adamw", "optim.lr=2e-3"],
    "adamw, averaged": ["optim.kind=adamw", "optim.lr=4e-3", "train.ema=0.1"],
    "sgd": ["optim.kind=sgd", "optim.lr=0.03"],
}
EPOCHS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(root, images=2, val_images=1, seed=0)
    return root


def words(kind: str, data: Path, output: Path, *more: str, epochs: int = EPOCHS) -> list[str]:
    """A run that measures itself on the images it learns, so that its numbers are not all zero."""
    on_training_images = ["data.val.annotations=annotations/instances_train.json", "data.val.images=train"]
    values = [*SMALL, *on_training_images, "train.batch_size=1", "data.workers=0", f"train.epochs={epochs}"]
    return ["train", "detectors_tiny", *values, *OPTIMISERS[kind], "--data", str(data), "--output", str(output), *more]


@pytest.fixture(scope="module", params=["adamw, averaged", "sgd"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[str, Path]:
    """An optimiser, and its run that nothing disturbed: all its evaluations in one process.

    AdamW without an average is measured in several views, below.
    """
    output = tmp_path_factory.mktemp(request.param.replace(", ", "-")) / "whole"
    dsctool(*words(request.param, data, output))
    return request.param, output


def recorded(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same(left: Path, right: Path) -> None:
    assert recorded(left) == recorded(right)
    for name in ("last.pt", "best.pt"):
        ours, theirs = load_checkpoint(left / name), load_checkpoint(right / name)
        assert ours.metrics == theirs.metrics, name
        assert ours.model.keys() == theirs.model.keys()
        assert all(torch.equal(value, theirs.model[key]) for key, value in ours.model.items()), name
        if ours.training is not None and ours.training.weights is not None:
            assert theirs.training is not None
            assert theirs.training.weights is not None
            pairs = ((value, theirs.training.weights[key]) for key, value in ours.training.weights.items())
            assert all(torch.equal(value, other) for value, other in pairs), f"{name}: the weights under the average"


def test_each_evaluation_is_that_of_the_checkpoint_beside_it(
    tmp_path: Path, data: Path, whole: tuple[str, Path]
) -> None:
    """The same run stopped after every epoch, its checkpoint measured, and continued."""
    kind, undisturbed = whole
    evaluations = [line for line in recorded(undisturbed) if line["kind"] == "eval"]
    boxes = {tuple(value for name, value in line.items() if name.startswith("bbox_")) for line in evaluations}
    assert len(boxes) == EPOCHS, "the numbers tell the epochs apart"
    output = tmp_path / "run"
    for epochs, evaluation in enumerate(evaluations, start=1):
        dsctool(*words(kind, data, output, *(["--resume"] if epochs > 1 else []), epochs=epochs))
        dsctool("eval", str(output / "last.pt"), "--data", str(data), "--json", str(tmp_path / "stats.json"))
        stats = json.loads((tmp_path / "stats.json").read_text())
        flat = {f"{part}_{name}": value for part, numbers in stats.items() for name, value in numbers.items()}
        assert flat == {name: value for name, value in evaluation.items() if name in flat}
        assert load_checkpoint(output / "last.pt").metrics == stats
    assert_same(output, undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
@pytest.mark.parametrize("whole", ["adamw, averaged"], indirect=True)
def test_a_killed_run_measures_the_same(tmp_path: Path, data: Path, whole: tuple[str, Path]) -> None:
    """SIGKILL in the second epoch: nothing can be saved on the way out."""
    kind, undisturbed = whole
    output = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=dsctool, args=words(kind, data, output))
    process.start()
    metrics = output / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 4):  # to a step after the first evaluation
        assert process.is_alive(), "it ends by itself"
        time.sleep(0.01)
    process.kill()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    state = load_checkpoint(output / "last.pt").training
    assert state is not None
    assert state.step < load_checkpoint(undisturbed / "last.pt").training.step  # type: ignore[union-attr]
    dsctool(*words(kind, data, output, "--resume"))
    assert_same(output, undisturbed)


def test_a_run_that_evaluates_in_several_views(tmp_path: Path, data: Path) -> None:
    """Its configuration says so, and its checkpoint is measured in the same views later."""
    output, stats = tmp_path / "run", tmp_path / "stats.json"
    views = ["data.tta.short_sides=[48,64]", "data.tta.merge=average"]
    said = dsctool(*words("adamw", data, output, *views, epochs=1))
    assert "finished" in said
    measured = load_checkpoint(output / "best.pt").metrics
    for more, same in ((views, True), (["data.tta=null"], False), ([], True)):
        dsctool("eval", str(output / "best.pt"), *more, "--data", str(data), "--json", str(stats))
        assert (json.loads(stats.read_text()) == measured) == same, more
