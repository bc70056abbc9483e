"""Other channels than red, green and blue through training, checkpoints and prediction."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import dsctool
from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.engine.setup import prepare
from dsctool.engine.step import optimizer_step
from dsctool.errors import DataError
from dsctool.interop.checkpoint import Checkpoint, load_model, save_checkpoint
from tests.models.tiny import SMALL, tiny_detector

BANDS = 5
WORDS = (
    *SMALL,
    "model.num_classes=null",
    "model.backbone.in_channels=4",
    "model.backbone.frozen_stages=-1",
    "data.channels=[5,3,1,2]",
    "data.image_range=percentile",
    "data.mean=[100,110,120,130]",
    "data.std=[50,51,52,53]",
    "data.train_resize={short_sides: [64], long_side: 64}",
    "data.test_resize={short_sides: [64], long_side: 64}",
    "data.workers=0",
    "train.batch_size=2",
    "postprocess.score_threshold=0",
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of dim five-band pictures with a square in each, bright in one band of each class."""
    root = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, 3):
            values = rng.integers(100, 300, (64, 64, BANDS)).astype(np.uint16)
            values[16:40, 8:48, number] += 1500
            tifffile.imwrite(root / split / f"{number}.tif", values, photometric="minisblack", planarconfig="contig")
            images.append({"id": number, "file_name": f"{number}.tif", "width": 64, "height": 64})
            polygon = [8, 16, 48, 16, 48, 40, 8, 40]
            annotation = {"id": number, "image_id": number, "category_id": number, "segmentation": [polygon]}
            annotations.append(annotation | {"bbox": [8, 16, 40, 24], "area": 960, "iscrowd": 0})
        categories = [{"id": 1, "name": "field"}, {"id": 2, "name": "wood"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def saved(config: Config, model: dsctool.Detector, path: Path) -> Path:
    save_checkpoint(path, Checkpoint(config=config, categories=model.categories, model=model.state_dict()))
    return path


@pytest.mark.parametrize("name", ["dsc_tiny", "detectors_tiny"])
def test_trained_stored_and_predicted(bands: Path, tmp_path: Path, name: str) -> None:
    config = load_config(name, [*WORDS, "data.copy_paste={}", "data.color={}", "data.jitter={size: 64}"])
    setup = prepare(config, data=bands, device=torch.device("cpu"))
    assert setup.notes == () or not any("black" in note for note in setup.notes)
    before = setup.model.backbone.conv1.weight.detach().clone()
    with setup.batches:
        for batches in islice(chain.from_iterable(setup.batches.epoch(epoch) for epoch in range(2)), 2):
            images = batches[0][0].tensor
            assert images.shape == (2, 4, 64, 64)
            result = optimizer_step(setup.model, setup.optimizer, batches, rate=1e-2, max_norm=35.0)
            assert all(loss.isfinite() for loss in result.losses.values())
    assert (setup.model.backbone.conv1.weight != before).flatten(2).any(dim=2).all()  # every filter of every band
    path = saved(setup.config, setup.model, tmp_path / "best.pt")

    model = load_model(path)
    file = bands / "val" / "1.tif"
    values = tifffile.imread(file)
    from_file, from_array = model.predict_images([file, values], score=0.0)
    assert len(from_file.boxes) > 0
    assert torch.equal(from_file.boxes, from_array.boxes)
    assert torch.equal(from_file.scores, from_array.scores)
    assert from_file.image is not None
    assert from_file.image.shape == (3, 64, 64)
    assert int(from_file.image.max()) == 255
    other = load_model(path, overrides=["data.channels=[1,2,3,5]"]).predict_images(file, score=0.0)
    assert not torch.equal(other.scores[:5], from_file.scores[:5])
    several = load_model(path, overrides=["data.tta={short_sides: [64, 96], long_side: 96}"])
    assert len(several.predict_images(file, score=0.0).boxes) > 0
    with pytest.raises(DataError, match=r"image 1: has 3 bands of 8-bit values, and data\.channels asks for number 5"):
        model.predict_images(np.zeros((64, 64, 3), np.uint8))


def test_commands(bands: Path, tmp_path: Path) -> None:
    model = tiny_detector("htc_tiny", [*WORDS, "model.num_classes=2"])
    model.categories = [Category(1, "field"), Category(2, "wood")]
    path = saved(model.config, model, tmp_path / "best.pt")
    pages = [np.full((64, 64), 90, np.uint8)] * 3
    first, *rest = map(Image.fromarray, pages)
    (tmp_path / "more" / "inner").mkdir(parents=True)
    first.save(tmp_path / "more" / "inner" / "pages.tif", save_all=True, append_images=rest)
    (tmp_path / "more" / "inner" / "film.mp4").write_bytes(b"")
    sources = (f"{bands}/val/*.tif", tmp_path / "more", "--recursive")
    found = run("predict", path, *sources, "--output", tmp_path / "out", "--score-threshold", "0")
    assert found.exit_code == 1, found.output  # the pages have no band 5
    assert "pages.tif: has 1 band of 8-bit values, and data.channels asks for number 5" in found.stderr
    assert "1 of 3 images could not be read" in found.stderr
    assert "ignored 1 file: .mp4" in found.stderr
    for name in ("1", "2"):
        with Image.open(next((tmp_path / "out" / "overlays").rglob(f"{name}.jpg"))) as overlay:
            assert np.asarray(overlay).mean() > 40  # and not black, as sixteen bits would be

    measured = run("eval", path, "--data", bands)
    assert measured.exit_code == 0, measured.output
    sheet = run("data", "preview", "htc_tiny", *WORDS, "--data", bands, "--output", tmp_path / "p.png")
    assert sheet.exit_code == 0, sheet.output


def test_training_warns_of_pictures_that_become_black(bands: Path) -> None:
    words = [word for word in WORDS if not word.startswith("data.image_range")]
    setup = prepare(load_config("htc_tiny", words), data=bands, device=torch.device("cpu"))
    notes = [note for note in setup.notes if "black" in note]
    assert len(notes) == 4
    assert "instances_train.json: image 1: becomes black or nearly so: its 16-bit values are below 2048" in notes[0]


def test_check_and_stats_take_the_words_of_training(bands: Path) -> None:
    words = [word for word in WORDS if word.startswith(("data.channels", "data.image_range", "data.mean", "data.std"))]
    for command in ("check", "stats"):
        done = run("data", command, bands, *words, "model.backbone.in_channels=4")
        assert done.exit_code == 0, done.output
    done = run("data", "check", bands, *words)
    assert done.exit_code == 1
    assert "model.backbone.in_channels" in done.output
