"""Models of four channels in every command that runs, rehearses or translates one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

import dsctool
from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.data.synthetic.scenes import CLASSES, STUFF
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.models.tiny import SMALL

CHANNELS = ("model.backbone.in_channels=4", "data.mean=[90,100,110,120]", "data.std=[50,51,52,53]")
WORDS = (
    *SMALL,
    *CHANNELS,
    f"model.num_classes={len(CLASSES)}",
    "data.channels=[4,1,3,2]",
    "data.train_resize={short_sides: [48], long_side: 64}",
    "data.test_resize={short_sides: [48], long_side: 64}",
    "data.semantic=stuffthingmaps",
    f"panoptic.labels=[{', '.join((*CLASSES, *STUFF))}]",
    "panoptic.min_score=0",
    "panoptic.stuff_area=1",
    "postprocess.score_threshold=0",
    "postprocess.max_per_image=5",
)


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    """A generated set, whose pictures have a fourth band, and ``best.pt``, a model of four. Not to be written to."""
    root = tmp_path_factory.mktemp("bands")
    (root / "stuffthingmaps").symlink_to(synthetic_root / "stuffthingmaps")
    for path in synthetic_root.glob("*/*.jpg"):
        with Image.open(path) as picture:
            picture.putalpha(picture.getchannel(0).rotate(180))
            (root / path.parent.name).mkdir(exist_ok=True)
            picture.save(root / path.parent.name / f"{path.stem}.png", compress_level=1)
    (root / "annotations").mkdir()
    for path in (synthetic_root / "annotations").iterdir():
        target = root / "annotations" / path.name
        if path.is_dir():
            target.symlink_to(path)
        else:
            target.write_text(path.read_text().replace(".jpg", ".png"))
    config = load_config("detectors_tiny", WORDS)
    torch.manual_seed(0)
    categories = [Category(number, each) for number, each in enumerate(CLASSES, start=1)]
    save_checkpoint(root / "best.pt", Checkpoint(config, categories, build_detector(config).state_dict()))
    return root


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def test_predicted(bands: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--stages", "--panoptic", "--table", out / "t.csv", "--score-threshold", "0", "--precision", "bfloat16"]
    run("predict", bands / "best.pt", bands / "val" / "000001.png", "--output", out, *words)
    for folder in ("stages", "overlays", "panoptic"):
        assert [path.stem for path in (out / folder).iterdir()] == ["000001"], folder
    assert len((out / "t.csv").read_text().splitlines()) == 1 + len(json.loads((out / "predictions.json").read_text()))


def test_tiles_in_half_precision(bands: Path, tmp_path: Path) -> None:
    """In the table red is the first channel, whichever band that is."""
    found = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        words = ["--tiles", "120", "--table", out / "t.csv", "--score-threshold", "0", "--precision", precision]
        run("predict", bands / "best.pt", bands / "val" / "000001.png", "--output", out, *words, "--no-overlays")
        results = found[precision] = json.loads((out / "predictions.json").read_text())
        rows = list(csv.DictReader((out / "t.csv").open()))
        assert [float(row["area"]) for row in rows] == [coco_mask.area(each["segmentation"]) for each in results]
        with Image.open(bands / "val" / "000001.png") as picture:
            alpha = np.asarray(picture)[..., 3]
        for row, each in zip(rows, results, strict=True):
            mask = coco_mask.decode(each["segmentation"]).astype(bool)
            assert float(row["mean_red"]) == pytest.approx(alpha[mask].mean(), rel=1e-5), "of the first channel"
    scores = [[each["score"] for each in results] for results in found.values()]
    assert len(scores[0]) > 10
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_the_fourth_band_is_seen(bands: Path) -> None:
    model, file = dsctool.load_model(bands / "best.pt", device="cpu"), bands / "val" / "000001.png"
    values = np.asarray(Image.open(file)).copy()
    values[..., 3] = 0
    with_it, without = model.predict_images([file, values], score=0)
    assert not torch.equal(with_it.scores, without.scores)


def test_measured(bands: Path, tmp_path: Path) -> None:
    said = run("eval", bands / "best.pt", "--data", bands, "--panoptic", "--device", "cpu")
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["all", "things", "stuff"]
    words = [bands / "val" / "000001.png", "data.tiles.size=96", "--output", tmp_path / "switch", "--layers", "rfp.*"]
    assert "switches are drawn over whole images" in run("visualize-switch", bands / "best.pt", *words)
    assert (tmp_path / "switch" / "sheets" / "000001.png").is_file()
    assert "2 images" in run("data", "rank", bands / "best.pt", *sorted((bands / "val").iterdir())[:2])


@pytest.mark.usefixtures("undrawn")
def test_reported(bands: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    run("huddle-report", "--predictions", bands / "best.pt", "--data", bands, "--output", report, "--gallery", "1")
    assert (report / "report.html").is_file()


def test_rehearsed(bands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsctool.engine.dryrun.ENOUGH", 0)
    words = ["data.workers=0", "train.batch_size=2", "--dry-run", "--device", "cpu"]
    said = run("train", "detectors_tiny", *WORDS, *words, "--data", bands, "--output", tmp_path / "run")
    assert "s per step" in said


def test_translated_and_back(tmp_path: Path) -> None:
    """mmdet's file does not say how pictures become channels, so that the command does."""
    names = ["plum", "date"]
    (tmp_path / "four.yaml").write_text("base: htc_tiny\nmodel: {backbone: {in_channels: 4}, num_classes: 2}\n")
    text = (
        tmp_path / "four.yaml"
    ).read_text() + "data: {mean: [1, 2, 3, 4], std: [5, 6, 7, 8], channels: [4, 3, 2, 1]}\n"
    (tmp_path / "four.yaml").write_text(text)
    config = load_config(tmp_path / "four.yaml")
    categories = [Category(number, each) for number, each in enumerate(names, start=1)]
    save_checkpoint(tmp_path / "own.pt", Checkpoint(config, categories, build_detector(config).state_dict()))
    said = run("convert", tmp_path / "own.pt", "--to", "mmdet", "--output", tmp_path / "there.pth")
    assert (
        "mmdet's configuration must say how pictures become these channels: model.backbone.in_channels=4 "
        "data.channels=[4, 3, 2, 1] data.image_range=full data.mean=[1.0, 2.0, 3.0, 4.0] "
        "data.std=[5.0, 6.0, 7.0, 8.0]" in said
    )
    words = ["--config", tmp_path / "four.yaml", "--output", tmp_path / "back.pt"]
    run("convert", tmp_path / "there.pth", *words)
    back, own = (load_checkpoint(tmp_path / name) for name in ("back.pt", "own.pt"))
    assert back.config.data.channels == (4, 3, 2, 1)
    assert all(torch.equal(value, back.model[name]) for name, value in own.model.items())
