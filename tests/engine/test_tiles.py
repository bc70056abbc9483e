"""Looking at images by tiles: with every cascade, beside whole images, and through every way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from typer.testing import CliRunner

import dsctool
from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.config.schema import DataConfig
from dsctool.data.image_files import ImageFile
from dsctool.data.tiles import tiles_of
from dsctool.engine.inference import find_instances
from dsctool.engine.tiles import found_in_files, shrink_note
from dsctool.errors import DataError
from dsctool.models.detector import Detector
from tests.cli.test_predict import checkpoint_of, read, save_image
from tests.models.tiny import tiny_detector

TILES = ("data.tiles.size=64", "data.tiles.overlap=0.25")
SIDES = ("data.test_resize.short_sides=[64]", "data.test_resize.long_side=96", "postprocess.max_per_image=5")
CPU = torch.device("cpu")


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def detector(name: str, *overrides: str) -> Detector:
    return tiny_detector(name, [*SIDES, *overrides]).eval()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("htc_tiny", []),
        ("detectors_tiny", ["postprocess.nms=mask", "data.tiles.batch=2"]),
        ("dsc_tiny", ["postprocess.nms=soft"]),
        ("fast_dsc_tiny", ["data.tta.short_sides=[64]", "data.tta.long_side=96"]),
        ("dsc_detectors_tiny", []),
        ("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null"]),
        ("cascade_mask_rcnn_tiny", ["model.geometry=mmdet1"]),
    ],
)
def test_tiles_with_every_cascade(name: str, overrides: list[str]) -> None:
    """What a tile finds far from its edges is found in the image; all lies inside; the best come first."""
    image = picture(70, 150)
    words = ["postprocess.keep_candidates=7", *overrides]
    (found,) = find_instances(detector(name, *TILES, *words), [image], score=0.0)
    assert found.masks is None
    assert found.size == (70, 150)
    assert found.image is not None
    assert torch.equal(found.image, image)
    assert len(found) > 0
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:].max(dim=0).values <= torch.tensor([150.0, 70.0])).all()
    if "model.cascade.mask_head=null" in overrides:
        assert found.encoded is None
        return
    bitmaps = found.bitmaps()
    assert bitmaps is not None
    assert bitmaps.shape == (len(found), 70, 150)
    assert found.areas.tolist() == bitmaps.sum(dim=(1, 2)).tolist()
    assert found.numpy().masks is not None
    assert [entry["segmentation"] for entry in found.to_coco(1)] == list(found.encoded or ())
    assert len(found[found.scores > found.scores[0] - 1e-6].encoded or ()) < len(found) + 1
    assert found[:1].bitmaps() is not None
    assert np.asarray(found.draw()).shape == (70, 150, 3)


@pytest.mark.parametrize("name", ["htc_tiny", "fast_dsc_tiny"])
def test_an_image_no_larger_than_a_tile_has_the_results_that_it_has_without(name: str) -> None:
    """Bit for bit, beside others that are larger."""
    small = picture(60, 64)
    (plain,) = find_instances(detector(name), [small], score=0.0)
    tiled, _ = find_instances(detector(name, *TILES), [small, picture(65, 60)], score=0.0)
    assert torch.equal(plain.boxes, tiled.boxes)
    assert torch.equal(plain.scores, tiled.scores)
    assert plain.masks is not None
    assert tiled.masks is not None
    assert torch.equal(plain.masks, tiled.masks)
    assert len(plain) > 0


def test_tiles_that_are_each_seen_as_an_image_of_its_own() -> None:
    """Results that no other tile has a say in are those of the tile's own picture, moved."""
    image = picture(64, 128)
    model = detector("htc_tiny", "data.tiles.size=64", "data.tiles.overlap=0", "data.tiles.agreement=1")
    (found,) = find_instances(model, [image], score=0.0)
    halves = find_instances(detector("htc_tiny"), [image[:, :, :64], image[:, :, 64:]], score=0.0)
    expected = torch.cat([halves[0].boxes, halves[1].boxes + torch.tensor([64.0, 0, 64, 0])])
    scores = torch.cat([each.scores for each in halves])
    best = scores.argsort(descending=True)
    torch.testing.assert_close(found.boxes, expected[best], rtol=0, atol=1e-4)
    assert torch.equal(found.scores, scores[best])


def test_limits_are_of_tiles_and_of_the_image() -> None:
    image = picture(70, 150)
    many = find_instances(detector("htc_tiny", *TILES), [image], score=0.0)[0]
    assert len(many) > 5, "five of each tile"
    few = find_instances(detector("htc_tiny", *TILES, "data.tiles.max_per_image=3"), [image], score=0.0)[0]
    assert torch.equal(few.boxes, many.boxes[:3])


def test_candidates_of_all_tiles(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", width=150, height=70)
    model = detector("htc_tiny", *TILES, "postprocess.keep_candidates=7")
    ((_, found),) = found_in_files(model, [ImageFile(tmp_path / "a.png", 1)], model.config.data, device=CPU)
    assert found.candidates is not None
    assert model.config.data.tiles is not None
    assert len(found.candidates) == 7 * len(tiles_of((70, 150), model.config.data.tiles))
    assert found.candidates.scores.tolist() == sorted(found.candidates.scores.tolist(), reverse=True)
    assert found.candidates.boxes[:, 2].max() > 64
    assert "max_per_image" in found.reached


# --- the commands -----------------------------------------------------------------------------------


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [*(str(word) for word in words), "--device", "cpu"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images larger than a tile of 64 pixels, and one that is not."""
    folder = tmp_path_factory.mktemp("photos")
    for name, width in (("a", 100), ("b", 60), ("c", 130)):
        save_image(folder / f"{name}.png", width=width, height=60)
    return folder


def test_predict(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["predict", checkpoint, photos, "--tiles", "64", "--overlap", "0.2", "--batch", "3", "--output", out]
    result = run(*words, "--score-threshold", "0")
    assert result.exit_code == 0, result.stderr
    results = read(out / "predictions.json")
    sizes = {entry["image_id"]: entry["segmentation"]["size"] for entry in results}
    assert sizes == {1: [60, 100], 2: [60, 60], 3: [60, 130]}
    assert max(entry["bbox"][0] + entry["bbox"][2] for entry in results) > 64
    assert all(coco_mask.decode(entry["segmentation"]).shape == tuple(sizes[entry["image_id"]]) for entry in results)
    with Image.open(out / "overlays" / "c.jpg") as overlay:
        assert overlay.size == (130, 60)
        assert not np.allclose(np.asarray(overlay), np.asarray(Image.open(photos / "c.png")), atol=60)
    assert "shrunk" not in result.stderr
    plain = run("predict", checkpoint, photos / "b.png", "--output", tmp_path / "plain", "--no-overlays")
    assert plain.exit_code == 0
    without = [{**entry, "image_id": 2} for entry in read(tmp_path / "plain" / "predictions.json")]
    assert without == [entry for entry in results if entry["image_id"] == 2], "no larger than a tile"


def test_predict_goes_on_with_the_same_tiles_only(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    words = ["predict", checkpoint, photos, "--output", tmp_path, "--no-overlays"]
    (photos / "bad.png").write_bytes(b"")
    try:
        assert run(*words, "--tiles", "64").exit_code == 1, "leaves its work file"
    finally:
        (photos / "bad.png").unlink()
    save_image(photos / "bad.png", width=90)
    first = len(read(tmp_path / "predictions.json"))
    other = run(*words, "--tiles", "48", "--resume")
    assert other.exit_code == 1
    assert "other overrides" in other.stderr
    again = run(*words, "--tiles", "64", "--resume")
    (photos / "bad.png").unlink()
    assert again.exit_code == 0, again.stderr
    assert len(read(tmp_path / "predictions.json")) > first


@pytest.mark.parametrize("option", ["--stages", "--panoptic"])
def test_what_looks_at_whole_images_refuses_tiles(checkpoint: Path, photos: Path, tmp_path: Path, option: str) -> None:
    result = run("predict", checkpoint, photos, "--tiles", "64", option, "--output", tmp_path / "x")
    assert result.exit_code == 1
    assert f"{option} looks at whole images: give no --tiles" in result.stderr
    assert not (tmp_path / "x").exists()


def test_options_that_make_no_sense(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    for words, said in (
        (["predict", checkpoint, photos, "--overlap", "0.1", "--output", tmp_path / "x"], "is for --tiles"),
        (["predict", checkpoint, photos, "--batch", "2", "--output", tmp_path / "x"], "is for --tiles"),
        (["eval", "--ground-truth", "a", "--predictions", "b", "--tiles", "5"], "are for running a model"),
        (["eval", checkpoint, "--data", tmp_path, "--panoptic", "--tiles", "5"], "cannot have --tiles"),
        (["predict", checkpoint, photos, "data.tiles.overlap=0.7", "--output", tmp_path / "x"], "data.tiles.overlap"),
    ):
        result = run(*words)
        assert result.exit_code != 0
        assert said in " ".join(result.stderr.replace("│", " ").split())


def test_eval_and_the_python_api_agree(tmp_path: Path, photos: Path) -> None:
    """AP on whole images, of what predict writes too; two loops of one thing."""
    few = ["model.rpn.test_max_proposals=20", "postprocess.max_per_image=5", "data.test_resize.short_sides=[64]"]
    path = checkpoint_of(tmp_path, "fast_dsc_tiny", *few)
    names = ["a.png", "b.png", "c.png"]
    images = [
        {"id": i, "file_name": name, "height": 60, "width": w}
        for i, (name, w) in enumerate(zip(names, (100, 60, 130), strict=True), 1)
    ]
    box = {"iscrowd": 0, "area": 800, "bbox": [20, 10, 40, 20], "segmentation": [[20, 10, 60, 10, 60, 30, 20, 30]]}
    truth = {
        "images": images,
        "annotations": [{**box, "id": i, "image_id": i % 3 + 1, "category_id": (7, 90)[i % 2]} for i in range(1, 7)],
        "categories": [{"id": 7, "name": "cup"}, {"id": 90, "name": "plate"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(truth))
    (tmp_path / "val").symlink_to(photos)
    words = ["--tiles", "64", "data.workers=0"]
    out = tmp_path / "results.json"
    result = run("eval", path, "--data", tmp_path, *words, "--predictions", out, "--json", tmp_path / "stats.json")
    assert result.exit_code == 0, result.stderr
    model = dsctool.load_model(path, overrides=["data.tiles.size=64", "data.workers=0"], device="cpu")
    assert dsctool.evaluate_model(model, tmp_path).stats == read(tmp_path / "stats.json")
    found = [entry for file, each in dsctool.predict_images(model, photos) for entry in each.to_coco(file.id)]
    assert [entry["bbox"] for entry in found] == [entry["bbox"] for entry in read(out)]
    found = [
        entry
        for each in model.predict_images([str(photos / name) for name in names], score=0)
        for entry in each.to_coco(1)
    ]
    assert [entry["score"] for entry in found] == [entry["score"] for entry in read(out)]


def test_very_large_images_are_drawn_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """And masks are not decoded for it."""
    monkeypatch.setattr("dsctool.data.windows.PREVIEW_SIDE", 50)
    monkeypatch.setattr("dsctool.data.windows.Preview.__init__.__kwdefaults__", {"longest": 50}, raising=False)
    monkeypatch.setattr("dsctool.visualize.draw.DECODED", 100)
    save_image(tmp_path / "a.png", width=130, height=60)
    result = run("predict", checkpoint, tmp_path / "a.png", "--tiles", "64", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "out" / "overlays" / "a.jpg") as overlay:
        assert overlay.size == (43, 20)
    model = dsctool.load_model(checkpoint, overrides=["data.tiles.size=64"], device="cpu")
    found = model.predict_images(tmp_path / "a.png", score=0)
    assert found.draw().size == (43, 20)
    assert found.size == (60, 130)
    with pytest.raises(DataError, match="these instances are in"):
        found.draw(np.zeros((20, 43, 3), dtype=np.uint8))


def test_what_is_shrunk_is_said_once(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_image(tmp_path / "photos" / f"{name}.png", width=400, height=300)
    words = ["predict", checkpoint, tmp_path / "photos", "--no-overlays", "--output"]
    result = run(*words, tmp_path / "out")
    assert result.stderr.count("is shrunk 5 times: a 40-pixel object becomes 8; use --tiles 64 ") == 1
    result = run(*words, tmp_path / "tiled", "--tiles", "290")
    assert result.stderr.count("tiles of 290x290 are shrunk 5 times") == 1
    assert "shrunk" not in run(*words, tmp_path / "small", "--tiles", "200").stderr


def test_the_words_of_the_note() -> None:
    data = load_config("htc_tiny").data
    assert shrink_note("x.tif", (6000, 8000), data) == (
        "x.tif: 8000x6000 is shrunk 23 times: a 40-pixel object becomes 2; use --tiles 256 (data.tiles.size=256)"
    )
    assert shrink_note("x.tif", (1000, 1000), data) is None
    in_views = DataConfig.model_validate({"tta": {"short_sides": [64, 256]}})
    assert shrink_note("x.tif", (1024, 1024), in_views) is None
    assert shrink_note("x.tif", (1100, 1100), in_views) is not None
