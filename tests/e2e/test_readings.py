"""Every command that runs on a data set reads each annotation file once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import find_split
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.data.readings import counting_openings
from tests.e2e.test_train import SMALL

BOTH = {"instances_train.json": 1, "instances_val.json": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    """Random weights for the generated set."""
    config = load_config("htc_tiny", [*SMALL, "data.workers=0"])
    categories = CocoDataset.for_evaluation(find_split(synthetic_root, config.data.val, "val"), config.data).categories
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, Checkpoint(config, categories, build_detector(config, num_classes=6).state_dict()))
    return path


def _readings(*words: str | Path) -> dict[str, int]:
    with counting_openings() as openings:
        result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return {name: count for name, count in openings.items() if name.startswith("instances_")}


def test_a_rehearsal(synthetic_root: Path, tmp_path: Path) -> None:
    words = ("htc_tiny", *SMALL, "data.workers=0", "data.keep_empty=false")
    assert _readings("train", *words, "--data", synthetic_root, "--output", tmp_path / "run", "--dry-run") == BOTH


def test_an_evaluation(checkpoint: Path, synthetic_root: Path) -> None:
    assert _readings("eval", checkpoint, "--data", synthetic_root) == {"instances_val.json": 1}


def test_an_evaluation_with_all_analyses(checkpoint: Path, synthetic_root: Path, tmp_path: Path) -> None:
    words = ("--huddle", "--errors", tmp_path / "errors")
    assert _readings("eval", checkpoint, "--data", synthetic_root, *words) == {"instances_val.json": 1}


def test_checking_and_counting(synthetic_root: Path) -> None:
    assert _readings("data", "check", synthetic_root) == BOTH
    assert _readings("data", "stats", synthetic_root) == BOTH
