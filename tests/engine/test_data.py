"""Opening the data of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.loading import load_config
from dsctool.engine.data import open_data
from dsctool.engine.preflight import check_classes
from dsctool.errors import ConfigError


def test_no_semantic_maps_for_a_model_without_the_branch(synthetic_root: Path) -> None:
    """Not even the folder of stuff maps is asked for."""
    for semantic in ("instances", "stuffthingmaps"):
        config = load_config("cascade_mask_rcnn_tiny", [f"data.semantic={semantic}", "data.workers=0"])
        assert open_data(config, synthetic_root).train_set[0].targets.semantic is None


def test_semantic_maps_for_a_model_with_the_branch(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["data.workers=0"])
    semantic = open_data(config, synthetic_root).train_set[0].targets.semantic
    assert semantic is not None
    assert semantic.max() == 5  # the background, after five classes


def test_too_few_channels_for_maps_of_the_instances(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=5", "data.workers=0"])
    with pytest.raises(ConfigError, match=r"semantic\.num_classes is 5 \(my\.yaml:3\), but .*5 classes and background"):
        check_classes(config, open_data(config, synthetic_root), {"model.cascade.semantic.num_classes": "my.yaml:3"})
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=6", "data.workers=0"])
    check_classes(config, open_data(config, synthetic_root), {})
