"""The real command line on a generated set: train, stop, resume, evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.engine.dryrun import Cost
from dsctool.engine.savings import try_savings
from dsctool.errors import OutOfMemoryError
from dsctool.interop.checkpoint import load_checkpoint, load_model

SMALL = [
    "data.train_resize.short_sides=[64]",
    "data.test_resize.short_sides=[64]",
    "model.backbone.stem_channels=8",
    "model.neck.channels=16",
    "model.rpn.train_max_proposals=50",
    "model.rpn.test_max_proposals=20",
    "model.cascade.samples=16",
    "model.cascade.box_head.channels=32",
    "model.cascade.mask_head.channels=16",
    "optim.warmup_steps=0",
    "train.batch_size=2",
    "train.log_interval=1",
]
"""Overrides that make a tiny configuration so small that a step takes a tenth of a second."""


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "dsctool", *map(str, words)]


def environment() -> dict[str, str]:
    # Runs are compared bit for bit, which they are on no GPU.
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""}


def dsctool(*words: str | Path) -> str:
    """What a command prints; it runs in this process, for its start takes longer than most of what is tested here."""
    done = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    """A run of two epochs that nothing disturbed."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    dsctool("train", "htc_tiny", *SMALL, "train.epochs=2", "--data", synthetic_root, "--output", output)
    return output


def test_the_run_folder_is_complete(whole: Path, synthetic_root: Path) -> None:
    annotations = json.loads((synthetic_root / "annotations/instances_train.json").read_text())["annotations"]
    most = max(Counter(entry["image_id"] for entry in annotations if not entry["iscrowd"]).values())
    given = load_config("htc_tiny", [*SMALL, "train.epochs=2"])
    assert load_config(whole / "config.yaml") == fit_limits(given, instances=most)
    model = load_model(whole / "best.pt")
    assert [category.id for category in model.categories] == list(range(1, 7))
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    last = load_checkpoint(whole / "last.pt")
    assert last.training is not None
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, last.training.step + 1))
    assert [line["epoch"] for line in lines if line["kind"] == "eval"] == [1.0, 2.0]
    assert last.metrics is not None
    assert last.metrics["segm"] is not None
    assert last.metrics["segm"].keys() >= {"AP", "AP50", "AR100"}


def test_eval_gives_the_numbers_of_the_run(tmp_path: Path, whole: Path, synthetic_root: Path) -> None:
    dsctool("eval", whole / "best.pt", "--data", synthetic_root, "--json", tmp_path / "stats.json")
    assert json.loads((tmp_path / "stats.json").read_text()) == load_checkpoint(whole / "best.pt").metrics


def wait_for_line(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until ``path`` has ``count`` lines; the process must be alive all the time."""
    deadline = time.monotonic() + 120
    while not (path.exists() and len(path.read_text().splitlines()) >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interrupted_and_resumed(tmp_path: Path, synthetic_root: Path, whole: Path) -> None:
    """Ctrl-C, which the loader's processes get as well: bit for bit as never having stopped."""
    output, number = tmp_path / "run", signal.SIGINT
    words = ["train", "htc_tiny", *SMALL, "train.epochs=2", "data.workers=2"]
    words += ["--data", str(synthetic_root), "--output", str(output)]
    process = subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    wait_for_line(output / "metrics.jsonl", 2, process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert f"{number.name}: saved {output / 'last.pt'} after step" in errors
    assert "--resume" in errors
    state = load_checkpoint(output / "last.pt").training
    assert state is not None
    assert 2 <= state.step < load_checkpoint(whole / "last.pt").training.step  # type: ignore[union-attr]
    dsctool(*words, "--resume")
    for name in ("last.pt", "best.pt"):
        ours, theirs = load_checkpoint(output / name), load_checkpoint(whole / name)
        assert ours.metrics == theirs.metrics
        for key, value in theirs.model.items():
            assert torch.equal(value, ours.model[key]), (name, key)


RECIPE = ["model.cascade.mask_head.init=kaiming", "model.neck.rfp={aspp_init: kaiming, feedback_init: zeros}"]
"""How the published weights of 2020 started."""


@pytest.mark.parametrize("name", ["detectors_tiny", "dsc_detectors_tiny", "cascade_mask_rcnn_tiny"])
def test_the_long_recipe_of_detectors_on_a_small_model(tmp_path: Path, synthetic_root: Path, name: str) -> None:
    """Its first steps: images of a size drawn between two, and a third of the rate, which is 0.01 for 8 images."""
    (tmp_path / "long.yaml").write_text(f"base: [{name}, _base_/schedule_40e.yaml]\n")
    sizes = ["data.train_resize.short_sides=[48, 64]", "data.train_resize.long_side=100"]
    once = ["train.epochs=1", "train.batch_size=8", "train.eval_interval=0", "optim.warmup_steps=500", "data.workers=0"]
    semantic = [] if name.startswith("cascade") else ["model.cascade.semantic.loss_average=valid_pixels"]
    words = [*SMALL, *RECIPE, *semantic, *sizes, *once]
    dsctool("train", tmp_path / "long.yaml", *words, "--data", synthetic_root, "--output", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["kind"] == "train"]
    assert rates == pytest.approx([0.01 * (1 + 2 * step / 500) / 3 for step in range(len(rates))])
    trained = load_checkpoint(tmp_path / "run/last.pt").model
    inputs = [value for key, value in trained.items() if key.endswith("rfp_conv.weight")]
    assert len(inputs) == 3
    assert all(bool(value.any()) for value in inputs), "zero before the first step"


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path: Path, synthetic_root: Path) -> None:
    before = sorted(synthetic_root.rglob("*"))
    shown = dsctool(
        "train", "cascade_mask_rcnn_tiny", *SMALL, "optim.decay=linear", "--data", synthetic_root,
        "--output", tmp_path / "run", "--dry-run",
    )  # fmt: skip
    facts = {line[:16].strip(): line[17:] for line in shown.splitlines()}
    assert facts.keys() >= {"data", "model", "device", "effective batch", "learning rate", "length", "memory", "time"}
    assert facts["effective batch"].startswith("2 images")
    assert facts["learning rate"].startswith("0.00025 = 0.0005 x 2 / 4")
    assert facts["learning rate"].endswith("then in a straight line to 0")
    assert "s per step" in facts["time"]
    assert not (tmp_path / "run").exists()
    assert sorted(synthetic_root.rglob("*")) == before


def test_a_run_without_validation_images_of_its_own(tmp_path: Path, synthetic_root: Path) -> None:
    """Of a length in steps, with an average of weights and losses of what is held out; gone on without its name."""
    words = ["train.steps=3", "data.val_share=0.25", "train.val_losses=true", "train.ema=0.9", "optim.kind=adamw"]
    run, data = tmp_path / "run", ["--data", synthetic_root]
    dsctool("train", "fast_dsc_tiny", *SMALL, *words, "data.workers=0", *data, "--output", run)
    dsctool("train", *data, "--output", run, "--resume", "train.steps=4")
    last = load_checkpoint(run / "last.pt")
    assert last.training is not None
    assert (last.training.step, last.training.evaluated) == (4, 4)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in evaluations] == [3, 4]
    assert all(line["val_loss"] > 0 for line in evaluations)
    page = (run / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * (2 + 1) + 2 * 2, "two images are held out"
    assert ">fast_dsc_tiny</code>, the shipped configuration nearest" in page
    dsctool("eval", run / "best.pt", *data, "--json", tmp_path / "stats.json")
    assert json.loads((tmp_path / "stats.json").read_text()) == load_checkpoint(run / "best.pt").metrics


@pytest.mark.parametrize("name", ["dsc_tiny", "detectors_tiny"])
def test_a_run_that_goes_on_in_less_memory(tmp_path: Path, synthetic_root: Path, name: str) -> None:
    """Resumed with activations that are computed again: bit for bit as one that never stopped, its average too."""
    words = ["train.ema=0.9", "train.eval_interval=0", "data.workers=0", "data.semantic=stuffthingmaps"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def train(output: Path, *more: str) -> None:
        dsctool("train", name, *SMALL, *words, "--data", synthetic_root, "--output", output, *more)

    train(whole, "train.steps=4")
    train(cut, "train.steps=2")
    train(cut, "train.steps=4", "train.checkpoint_activations=true", "--resume")
    labels = load_checkpoint(cut / "last.pt").config.panoptic.labels
    assert labels is not None
    assert labels[-1] == "seaweed", "names of stuff go on with the run"
    ours, theirs = load_checkpoint(cut / "last.pt"), load_checkpoint(whole / "last.pt")
    assert ours.training is not None
    assert theirs.training is not None
    assert ours.training.weights is not None
    assert theirs.training.weights is not None
    for key, value in theirs.model.items():
        assert torch.equal(value, ours.model[key]), key
        assert torch.equal(theirs.training.weights[key], ours.training.weights[key]), key


def test_a_dry_run_tries_what_saves_memory(synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own; of the changes there are, one is enough here."""
    option = ("train.checkpoint_activations=true", "train.precision=bfloat16")
    monkeypatch.setattr("dsctool.engine.savings.savings", lambda config: [option])
    words = ["train", "cascade_mask_rcnn_tiny", *SMALL, "data.workers=0", "--data", str(synthetic_root)]
    ballast = torch.ones(2**28)  # a GiB that this process has and the other one has not
    shown = dsctool(*words, "--dry-run", "--save-memory").splitlines()
    header, before, after = shown[-3:]
    assert header.split() == ["settings", "memory", "at", "most", "s", "per", "step"]
    assert before.split()[-2] == "GiB"
    assert after.startswith("train.checkpoint_activations=true train.precision=bfloat16  ")
    assert 0.1 < float(after.split()[-3]) < ballast.nbytes / 2**30 < float(before.split()[-3])


def test_a_dry_run_without_memory_says_so_and_what_helps(synthetic_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has next to none left when the steps begin; torch would not recover from that here."""

    def take_steps(setup: object) -> Cost:
        raise OutOfMemoryError("out of memory while training on 3 instances")

    monkeypatch.setattr("dsctool.engine.dryrun.available_bytes", lambda device: 2**20)
    monkeypatch.setattr("dsctool.engine.dryrun.take_steps", take_steps)
    monkeypatch.setattr("dsctool.engine.dryrun.within", lambda *given: nullcontext())
    trying = partial(try_savings, measure=lambda *given: Cost({}, 6, 0.25, 2**29))
    monkeypatch.setattr("dsctool.engine.savings.try_savings", trying)
    words = ["train", "cascade_mask_rcnn_tiny", *SMALL, "data.train_resize.short_sides=[640]", "data.workers=0"]
    words += ["--data", str(synthetic_root), "--dry-run", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "not enough; 0.00 GiB were free" in done.stdout
    _, before, after, *_ = done.stdout[done.stdout.index("settings ") :].splitlines()
    assert before.split() == ["as", "it", "is", "too", "little", "-"]
    assert after.split() == ["train.checkpoint_activations=true", "0.50", "GiB", "0.25"]
    assert "out of memory" in done.stderr


def test_real_images(tmp_path: Path, real_data: Path) -> None:
    """COCO's own photographs and annotations, crowds and 80 classes with gaps in their ids included."""
    data, output = real_data / "coco-mini", tmp_path / "run"
    half = ["data.train.annotations=annotations/instances_val2017.json", "data.train.images=val2017"]
    words = [*half, "train.epochs=1", "train.batch_size=8", "train.eval_interval=0", "data.workers=0"]
    dsctool("train", "htc_tiny", *SMALL, *words, "--data", data, "--output", output)
    categories = load_checkpoint(output / "best.pt").categories
    assert (len(categories), categories[0].name, categories[-1].id) == (80, "person", 90)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
