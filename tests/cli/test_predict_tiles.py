"""``dsctool predict --tiles`` beside what else it can be asked for: deep pictures, tables, sets to edit, styles."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import dsctool
from dsctool.cli.scores import stored_thresholds
from dsctool.interop.checkpoint import OperatingPoint, load_checkpoint, store_operating_point
from tests.cli.test_predict import checkpoint_of, read, run

HEIGHT, WIDTH = 60, 130


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with thresholds that half of what it finds reaches, and a picture of 12 bits in 16, half of it dim."""
    folder = tmp_path_factory.mktemp("made")
    values = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    values[:, :64] //= 9
    Image.fromarray(values).save(folder / "deep.png")
    checkpoint = checkpoint_of(folder, "htc_tiny")
    words = ["data.tiles.size=64", "data.image_range=minmax"]
    found = dsctool.load_model(checkpoint, overrides=words, device="cpu").predict_images(folder / "deep.png", score=0)
    middle = float(found.scores.median())
    point = OperatingPoint((middle, middle), best="f1", kind="segm", iou=0.5, images=1, overrides=tuple(words[:1]))
    store_operating_point(checkpoint, point)
    return checkpoint


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_at_once(made: Path, tmp_path: Path) -> None:
    deep, out = made.parent / "deep.png", tmp_path / "out"
    words = [made, deep, "--tiles", "64", "data.image_range=minmax", "--output", out, "--score-threshold", "auto"]
    more = ["--table", out / "t.csv", "--for-editing", tmp_path / "edit", "--color", "class", "--no-labels"]
    result = run(*words, *more)
    assert result.exit_code == 0, result.stderr
    assert "black" not in result.stderr
    assert "its thresholds were found with data.tiles.size=64, now it runs with" in result.stderr, "another range"
    found = read(out / "predictions.json")
    point = load_checkpoint(made).operating_point
    assert point is not None
    shown = [each for each in found if each["score"] >= point.thresholds[0]]
    assert 0 < len(shown) < len(found)
    rows = rows_of(out / "t.csv")
    assert [float(row["area"]) for row in rows] == [float(coco_mask.area(each["segmentation"])) for each in shown]
    values = np.asarray(Image.open(deep)).astype(float)
    bytes_ = np.rint((values - values.min()) * (255 / (values.max() - values.min())))
    for row, each in zip(rows, shown, strict=True):
        mean = bytes_[coco_mask.decode(each["segmentation"]).astype(bool)].mean()
        assert float(row["mean_red"]) == pytest.approx(mean, abs=0.02)
    edit = json.loads((tmp_path / "edit/annotations/instances_default.json").read_text())
    assert 0 < len(edit["annotations"]) <= len(shown)
    assert max(each["bbox"][0] + each["bbox"][2] for each in edit["annotations"]) > 64
    with Image.open(out / "overlays" / "deep.jpg") as overlay:
        assert overlay.width == WIDTH
        assert overlay.height > HEIGHT, "and a legend"


def test_what_is_kept_smaller_has_no_brightness(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is drawn in any style; what is nearly black is said, of all windows together."""
    monkeypatch.setattr("dsctool.data.windows.Preview.__init__.__kwdefaults__", {"longest": 50}, raising=False)
    monkeypatch.setattr("dsctool.visualize.draw.DECODED", 100)
    deep, out = made.parent / "deep.png", tmp_path / "out"
    words = ["--tiles", "64", "--output", out, "--score-threshold", "0", "--color", "instance"]
    result = run(made, deep, *words, "--table", out / "t.csv")
    assert result.exit_code == 0, result.stderr
    assert f"{deep}: becomes black or nearly so: its 16-bit values are below 4096 of 65536" in result.stderr
    assert f"{deep}: is kept smaller by --tiles: --table has no mean red, green and blue of it" in result.stderr
    rows, found = rows_of(out / "t.csv"), read(out / "predictions.json")
    assert [float(row["area"]) for row in rows] == [float(coco_mask.area(each["segmentation"])) for each in found]
    assert {row["mean_red"] for row in rows} == {""}
    assert {row["touches_border"] for row in rows} == {"0", "1"}
    with Image.open(out / "overlays" / "deep.jpg") as overlay:
        assert overlay.width == WIDTH // 3
        assert np.asarray(overlay)[: HEIGHT // 3].mean() > 40, "stretched"


def test_thresholds_are_of_the_tiles_they_were_found_with(made: Path) -> None:
    assert stored_thresholds(made, ["data.tiles.size=64"]).note is None
    note = stored_thresholds(made, ["data.tiles.size=100"]).note
    assert note is not None
    assert "data.tiles.size=64, now it runs with data.tiles.size=100" in note
