"""Configurations fitted to data: what they say, and that they load and fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.engine.dryrun import Cost
from dsctool.engine.suggestion import Suggestion, suggest
from dsctool.errors import ConfigError, DataError, OutOfMemoryError
from tests.data.crowded import write_crowded
from tests.data.tiny import tiny_content, write_tiny


def loaded(found: Suggestion, folder: Path) -> Config:
    """The configuration, by the way that users take; every line is there, with a reason."""
    path = folder / "fitted.yaml"
    path.write_text(found.yaml())
    assert all(line.reason for line in found.lines)
    assert found.yaml().count("#") >= len(found.lines)
    return load_config(path)


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    return write_crowded(tmp_path / "data", train=110, val=20)


def test_small_crowded_things(crowded: Path, tmp_path: Path) -> None:
    config = loaded(suggest(crowded, measure=None, device="cpu"), tmp_path)
    assert config.data.train_resize.short_sides == config.data.test_resize.short_sides == (240 + 16,)
    assert config.model.rpn.anchor_scale < 4, "8-pixel squares"
    assert config.postprocess.max_per_image == config.model.rpn.test_max_proposals == "auto"
    assert config.train.epochs == 300, "two images"
    assert config.optim.decay == "linear"
    assert config.optim.warmup_steps == 30, "a tenth of the steps"


def test_published_recipes_become_those_of_the_data(crowded: Path, synthetic_root: Path, tmp_path: Path) -> None:
    found = suggest(crowded, "htc_r50_fpn_1x_coco", measure=None, device="cpu")
    config = loaded(found, tmp_path)
    assert config.model.num_classes is None
    assert config.data.semantic == "instances"
    assert config.model.cascade.semantic_branch is not None
    reasons = {line.key: line.reason for line in found.lines}
    assert reasons["postprocess.max_per_image"].startswith("165: 1.5 for each of 110 instances")
    assert config.data.train_resize.short_sides == (800,), "8 pixels need it, though images have 120"
    config = loaded(suggest(synthetic_root, "htc_r50_fpn_1x_coco", measure=None, device="cpu"), tmp_path)
    assert config.data.train_resize.short_sides[0] <= 368, "twice the pixels that images have"
    assert config.data.semantic == "stuffthingmaps"


@pytest.mark.parametrize(
    ("first", "each", "free", "batch"),
    [(2.0, 1.0, 24, 16), (2.0, 1.0, 8, 4), (2.0, 3.0, 8, 2), (2.0, 9.0, 8, 1)],
)
def test_the_batch_fits_the_memory(
    crowded: Path, monkeypatch: pytest.MonkeyPatch, first: float, each: float, free: int, batch: int
) -> None:
    """With 0.8 of the memory; more than two images are not tried, and not more than there are taken."""
    tried: list[int] = []

    def measure(config: Config, data: Path, device: str) -> Cost:
        size = config.train.batch_size
        tried.append(size)
        if first + each * (size - 1) > free:
            raise OutOfMemoryError("no")
        return Cost({}, 2, 1.0, int((first + each * (size - 1)) * 2**30))

    monkeypatch.setattr("dsctool.engine.suggestion.available_bytes", lambda place: free * 2**30)
    monkeypatch.setattr("dsctool.engine.suggestion._Builder.images", 64)
    found = suggest(crowded, "htc_r50_fpn_1x_coco", measure=measure, device="cpu")
    assert {line.key: line.value for line in found.lines}["train.batch_size"] == batch
    assert tried == [1, 2]
    monkeypatch.setattr("dsctool.engine.suggestion.available_bytes", lambda place: 2**30)
    first = 9e9
    lines = {line.key: line.value for line in suggest(crowded, measure=measure, device="cpu").lines}
    assert (lines["train.batch_size"], lines["train.checkpoint_activations"]) == (1, True)


def test_what_was_asked_for_stays(crowded: Path, tmp_path: Path) -> None:
    words = ("data.train_resize.short_sides=[96]", "optim.lr=0.001", "train.batch_size=1")
    config = loaded(suggest(crowded, overrides=words, measure=None, device="cpu"), tmp_path)
    assert config.data.train_resize.short_sides == (96,)
    assert (config.optim.lr, config.train.batch_size) == (0.001, 1)
    with pytest.raises(ConfigError):
        suggest(crowded, overrides=("optim.nonsense=1",), measure=None, device="cpu")


def write(root: Path, change: Any) -> Path:
    content = tiny_content()
    for each in content["annotations"]:
        each["iscrowd"] = 0
    change(content)
    write_tiny(root, content)
    return root


def test_boxes_alone(tmp_path: Path) -> None:
    def without(content: dict[str, Any]) -> None:
        for each in content["annotations"]:
            del each["segmentation"]

    root = write(tmp_path / "data", without)
    config = loaded(suggest(root, measure=None, device="cpu"), tmp_path)
    assert not config.model.cascade.has_masks
    assert config.data.semantic == "none"
    with pytest.raises(DataError, match="has no segmentations, which htc_tiny learns"):
        suggest(root, "htc_tiny", measure=None, device="cpu")


def test_no_validation_split_faults_and_nothing_at_all(tmp_path: Path) -> None:
    def faulty(content: dict[str, Any]) -> None:
        content["annotations"][0]["category_id"] = 77

    config = loaded(suggest(write(tmp_path / "faulty", faulty), measure=None, device="cpu"), tmp_path)
    assert (config.data.on_error, config.train.eval_interval) == ("skip", 0)
    root = write(tmp_path / "empty", lambda content: content["annotations"].clear())
    with pytest.raises(DataError, match="nothing to train on"):
        suggest(root, measure=None, device="cpu")


def test_a_file_of_ones_own_is_the_base(crowded: Path, tmp_path: Path) -> None:
    (tmp_path / "my own.yaml").write_text("base: dsc_tiny\noptim: {lr: 3e-4}\n")
    found = suggest(crowded, str(tmp_path / "my own.yaml"), measure=None, device="cpu")
    config = loaded(found, tmp_path)
    assert (config.model.cascade.kind, config.optim.lr) == ("dsc", 3e-4)
    assert json.dumps(str(tmp_path / "my own.yaml")) in found.yaml()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detectors_tiny", ("optim.kind=sgd",)),
        ("dsc_tiny", ("data.tta.short_sides=[64,96]",)),
        ("fast_dsc_tiny", ("train.ema=0.99", "data.copy_paste={}")),
        ("dsc_detectors_tiny", ("data.jitter.size=128",)),
        ("cascade_mask_rcnn_tiny", ("data.val_share=0.5", "postprocess.nms=mask")),
        ("cascade_rcnn_r50_fpn_1x_coco", ("train.steps=50",)),
    ],
)
def test_every_kind_of_configuration_is_fitted(
    crowded: Path, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    config = loaded(suggest(crowded, name, words, measure=None, device="cpu"), tmp_path)
    wanted = load_config(name, words)
    assert config.model.cascade.kind == wanted.model.cascade.kind
    assert (config.optim.kind, config.train.ema, config.data.tta) == (
        wanted.optim.kind,
        wanted.train.ema,
        wanted.data.tta,
    )
    assert config.train.steps == wanted.train.steps
    assert config.train.steps is None or config.train.epochs == wanted.train.epochs
    assert (config.data.jitter, config.data.copy_paste) == (wanted.data.jitter, wanted.data.copy_paste)
