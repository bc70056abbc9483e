"""Opening the data of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from dsctool.config.loading import load_config
from dsctool.engine.preflight import check_classes
from dsctool.engine.sets import open_data
from dsctool.errors import ConfigError, DataError


def test_no_semantic_maps_for_a_model_without_the_branch(synthetic_root: Path) -> None:
    """Not even the folder of stuff maps is asked for."""
    for semantic in ("instances", "stuffthingmaps"):
        config = load_config("cascade_mask_rcnn_tiny", [f"data.semantic={semantic}", "data.workers=0"])
        assert open_data(config, synthetic_root).train_set[0].targets.semantic is None


def test_semantic_maps_for_a_model_with_the_branch(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["data.workers=0"])
    semantic = open_data(config, synthetic_root).train_set[0].targets.semantic
    assert semantic is not None
    assert semantic.max() == 6  # the background, after six classes


def test_too_few_channels_for_maps_of_the_instances(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=6", "data.workers=0"])
    with pytest.raises(ConfigError, match=r"semantic\.num_classes is 6 \(my\.yaml:3\), but .*6 classes and background"):
        check_classes(config, open_data(config, synthetic_root), {"model.cascade.semantic.num_classes": "my.yaml:3"})
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=7", "data.workers=0"])
    check_classes(config, open_data(config, synthetic_root), {})


def test_maps_that_name_classes_the_branch_has_not_are_refused(tmp_path: Path, synthetic_root: Path) -> None:
    """Before training: the loss could only crash on them."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    for path in (root / "train").iterdir():
        size = Image.open(path).size
        Image.new("L", size, 200).save(root / "stuffthingmaps" / "train" / f"{path.stem}.png")
    words = ["data.semantic=stuffthingmaps", "data.workers=0", "train.eval_interval=0"]
    with pytest.raises(DataError, match=r"image 1: .*000001\.png: holds the value 200; classes go from 0 to 182"):
        open_data(load_config("htc_tiny", words), root)
    enough = load_config("htc_tiny", [*words, "model.cascade.semantic.num_classes=201"])
    semantic = open_data(enough, root).train_set[0].targets.semantic
    assert semantic is not None
    assert (semantic == 200).all()
