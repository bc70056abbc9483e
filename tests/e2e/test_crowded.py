"""More than 100 instances in an image, through the real commands."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.interop.checkpoint import load_checkpoint, save_checkpoint
from tests.data.crowded import write_crowded
from tests.models.tiny import SMALL

SETTINGS = [
    *(word for word in SMALL if "max_" not in word),
    "model.num_classes=null",
    "model.cascade.samples=16",
    "postprocess.score_threshold=0",
    "data.workers=0",
    "data.train_resize.short_sides=[64]",
    "data.test_resize.short_sides=[64]",
    "optim.warmup_steps=0",
    "train.batch_size=2",
    "train.epochs=1",
]
FEW = ["postprocess.max_per_image=100", "model.rpn.test_max_proposals=105"]


def dsctool(*words: str | Path) -> Result:
    done = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 instances in each of two images of both splits."""
    return write_crowded(tmp_path_factory.mktemp("crowded") / "data", train=110, val=110)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, crowded: Path) -> Path:
    """An epoch with limits that are too small, and weights that are sure of everything afterwards."""
    output = tmp_path_factory.mktemp("run") / "run"
    dsctool("train", "htc_tiny", *SETTINGS, *FEW, "--data", crowded, "--output", output)
    checkpoint = load_checkpoint(output / "best.pt")
    weights = {name: value.clone() for name, value in checkpoint.model.items()}
    weights["rpn.objectness.bias"].fill_(9.0)
    for name in [name for name in weights if name.endswith("classifier.bias")]:
        weights[name] = torch.tensor([2.0, 2.0, 0.0])
    save_checkpoint(output / "sure.pt", type(checkpoint)(checkpoint.config, checkpoint.categories, weights))
    return output


def test_too_small_limits_are_said_when_training_begins(trained: Path, crowded: Path) -> None:
    said = (
        "up to 110 instances in an image, more than postprocess.max_per_image=100 and "
        "model.rpn.test_max_proposals=105: some cannot be found. Set all of these, for 110 instances: "
        "postprocess.max_per_image=165 model.rpn.test_max_proposals=550"
    )
    log = (trained / "train.log").read_text()
    for split in ("train", "val"):
        assert f"{crowded / 'annotations' / f'instances_{split}.json'}: {said}" in log
    assert "limits           100 results of 105 proposals an image; at most 110 instances in a training image" in log
    rehearsed = dsctool("train", "htc_tiny", *SETTINGS, *FEW, "--data", crowded, "--dry-run").stdout
    assert f"instances_val.json: {said}" in rehearsed


REACHED = (
    "2 of 2 images reached postprocess.max_per_image=100 and 2 of 2 images reached model.rpn.test_max_proposals=105: "
    "instances may be missing. Set all of these, for 400 instances: postprocess.max_per_image=600 "
    "model.rpn.test_max_proposals=2000 model.rpn.test_pre_nms=4000"
)


def test_predict_returns_what_it_is_told_to(trained: Path, crowded: Path, tmp_path: Path) -> None:
    words = ["predict", trained / "sure.pt", crowded / "val", "--no-overlays", "postprocess.nms_iou=0.99"]
    few = dsctool(*words, "--output", tmp_path / "few")
    assert few.stderr.splitlines()[-1] == REACHED
    dsctool(*words, "--output", tmp_path / "many", "postprocess.max_per_image=130", "model.rpn.test_max_proposals=300")
    counts = {name: Counter(each["image_id"] for each in results(tmp_path / name)) for name in ("few", "many")}
    assert counts == {"few": {1: 100, 2: 100}, "many": {1: 130, 2: 130}}


def test_eval_says_it_too(trained: Path, crowded: Path) -> None:
    done = dsctool("eval", trained / "sure.pt", "postprocess.nms_iou=0.99", "--data", crowded)
    settings = "110 instances: postprocess.max_per_image=165 model.rpn.test_max_proposals=550"
    assert done.stderr.splitlines()[-1] == f"{REACHED.partition('400 instances')[0]}{settings}"


def results(folder: Path) -> list[dict[str, int]]:
    content: list[dict[str, int]] = json.loads((folder / "predictions.json").read_text())
    return content


@pytest.mark.parametrize("base", ["htc_tiny", "htc_tiny, _base_/crowded.yaml"])
def test_limits_of_their_own_follow_the_data(base: str, crowded: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: [{base}]\n")
    words = ["train", tmp_path / "mine.yaml", *SETTINGS, "--data", crowded, "--output", tmp_path / "run"]
    log = dsctool(*words, "train.eval_interval=0").stdout
    assert "some cannot be found" not in log
    assert "limits           165 results of 550 proposals an image" in log
    stored = load_config(tmp_path / "run" / "config.yaml")
    assert (stored.postprocess.max_per_image, stored.model.rpn.test_max_proposals) == (165, 550)
    dsctool(*words, "train.eval_interval=0", "train.epochs=2", "--resume")
    assert load_checkpoint(tmp_path / "run" / "last.pt").config.postprocess == stored.postprocess
    dsctool("predict", tmp_path / "run" / "last.pt", crowded / "val", "--output", tmp_path / "found", "--no-overlays")
    assert min(Counter(each["image_id"] for each in results(tmp_path / "found")).values()) > 100
