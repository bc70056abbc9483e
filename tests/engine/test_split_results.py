"""A detector or a checkpoint in one call: on a split, and over image files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dsctool
from dsctool.data.image_files import find_images
from dsctool.data.pictures import picture_batches
from dsctool.engine.inference import detections, keep_candidates, to_results
from dsctool.engine.split_results import run_on_split
from dsctool.errors import DataError
from dsctool.evaluation.coco import evaluate_all
from dsctool.interop.checkpoint import load_model
from dsctool.models.detector import Detector
from tests.cli.test_evaluate import save_tiny, val_categories


@pytest.fixture(scope="module")
def checkpoint(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "best.pt", val_categories(synthetic_root))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Detector:
    """Not to be changed."""
    return load_model(checkpoint, overrides=["postprocess.max_per_image=9"])


def truth(root: Path) -> Path:
    return next((root / "annotations").glob("instances_val*.json"))


def test_a_detector_and_its_checkpoint_have_the_same_numbers(
    checkpoint: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    loaded = load_model(checkpoint)
    evaluation = dsctool.evaluate_model(loaded, synthetic_root, progress=lambda *each: seen.append(each))
    assert seen[-1] == ("eval", 4, 4)
    assert dsctool.evaluate_model(str(checkpoint), str(synthetic_root), device="cpu") == evaluation
    run = run_on_split(loaded, synthetic_root)
    measured = evaluate_all(truth(synthetic_root), json.loads(json.dumps(run.results)))
    assert replace(measured, notes=[*run.notes, *measured.notes]) == evaluation
    assert {each["image_id"] for each in run.results} == {
        image["id"] for image in json.loads(truth(synthetic_root).read_text())["images"]
    }
    train = run_on_split(loaded, synthetic_root, split="train")
    assert len({each["image_id"] for each in train.results}) == 8


def test_a_detector_with_other_classes(model: Detector, synthetic_root: Path) -> None:
    names = model.categories
    try:
        model.categories = [replace(names[0], name="spoon"), *names[1:]]
        with pytest.raises(DataError, match="only in the model: spoon"):
            dsctool.evaluate_model(model, synthetic_root)
    finally:
        model.categories = names


def test_a_split_that_there_is_not(model: Detector, synthetic_root: Path) -> None:
    with pytest.raises(DataError, match="test: no split; there are train and val"):
        dsctool.evaluate_model(model, synthetic_root, split="test")  # type: ignore[arg-type]


def test_images_one_after_the_other(model: Detector, synthetic_root: Path) -> None:
    found = dsctool.predict_images(model, synthetic_root / "val")
    assert isinstance(found, Iterator)
    paths = find_images([synthetic_root / "val"])
    batches = picture_batches([file for file, _ in dsctool.predict_images(model, paths)], model.config.data)
    for (file, instances), (picture, expected) in zip(
        found, detections(model, batches, device=torch.device("cpu")), strict=True
    ):
        assert file.path == picture.file.path
        assert torch.equal(instances.boxes, expected.boxes)
        assert instances.masks is not None
        assert instances.masks.shape == (9, *picture.original_size)
        areas = [result["segmentation"]["size"] for result in to_results(expected, 1, model.categories)]
        assert (np.asarray(areas) == picture.original_size).all()


def test_an_image_file_that_cannot_be_read(model: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        next(dsctool.predict_images(model, tmp_path))
    with pytest.raises(DataError, match="no such file"):
        next(dsctool.predict_images(model, tmp_path / "b.png"))


def test_candidates_are_kept_when_asked_for(checkpoint: Path, synthetic_root: Path) -> None:
    model = load_model(checkpoint, overrides=["postprocess.score_threshold=0"])
    assert run_on_split(model, synthetic_root).candidates == []
    keep_candidates(model, 30)
    run = run_on_split(model, synthetic_root)
    assert len(run.candidates) == 4 * 30
    keep_candidates(model, 40)
    again = run_on_split(model, synthetic_root)
    assert (again.results, again.candidates) == (run.results, run.candidates), "a number that is set stays"
