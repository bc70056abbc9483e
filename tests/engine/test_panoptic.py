"""Names of stuff, which a run takes from its data set, and the settings of the fusion."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.engine.panoptic import fusion_settings, with_stuff_names
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.models.panoptic import FusionSettings

MAPS = "data.semantic=stuffthingmaps"
OWN = [Category(1, "cup")]


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("0: cup\n1: sand\n")
    (tmp_path / "train").mkdir()
    return tmp_path / "train"


def test_names_beside_the_maps(maps: Path) -> None:
    config, notes = with_stuff_names(load_config("htc_tiny", [MAPS]), maps, OWN)
    assert config.panoptic.labels == ("cup", "sand")
    assert notes == []
    again, _ = with_stuff_names(config, maps / "nowhere", OWN)
    assert again == config


@pytest.mark.parametrize("words", [[], [MAPS, "panoptic.labels=[cup, rock]"]])
def test_names_that_are_not_asked_for(words: list[str], maps: Path) -> None:
    config = load_config("htc_tiny", words)
    assert with_stuff_names(config, maps, OWN) == (config, [])


def test_coco_has_names(maps: Path) -> None:
    config = load_config("htc_r50_fpn_1x_coco")
    assert with_stuff_names(config, maps, COCO_CATEGORIES) == (config, [])
    assert with_stuff_names(load_config("htc_tiny", [MAPS]), None, OWN)[0].panoptic.labels is None
    (maps.parent / "labels.txt").write_text("0: person\n199: rug-merged\n")  # COCO's panoptic ids, not COCO-Stuff's
    assert len(with_stuff_names(config, maps, COCO_CATEGORIES)[0].panoptic.labels or ()) == 200


def test_a_file_of_something_else_stops_no_training(maps: Path) -> None:
    (maps.parent / "labels.txt").write_text("cup\nsand\n")
    config = load_config("htc_tiny", [MAPS])
    same, notes = with_stuff_names(config, maps, OWN)
    assert same == config
    (note,) = notes
    assert "labels.txt: line 1 is 'cup'" in note
    assert "--stuff-labels" in note


def test_settings() -> None:
    assert fusion_settings(load_config("htc_r50_fpn_1x_coco").panoptic) == FusionSettings()
    words = ["panoptic.rule=mmdet", "panoptic.stuff_area=9", "panoptic.overlap=0.2", "panoptic.pixel=probability"]
    found = fusion_settings(load_config("htc_tiny", words).panoptic)
    assert found == FusionSettings("mmdet", 0.6, 0.2, 9, "probability")
    assert fusion_settings(load_config("htc_tiny", [*words, "panoptic.min_score=0.1"]).panoptic).min_score == 0.1
