"""``dsctool visualize-switch``: files, table, JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.models.tiny import SMALL

SAC = ("model.backbone.sac={}", "model.backbone.weight_standardisation=true")
LAYERS = [f"backbone.layer{stage}.{block}.conv2" for stage in (2, 3, 4) for block in (0, 1)]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["visualize-switch", *(str(word) for word in words), "--device", "cpu"])


def save_model(path: Path, *overrides: str, switch: float = 0.25) -> Path:
    """A random detector; with SAC its first layer's switch is 1.5 and all others ``switch``, everywhere."""
    small = ["data.test_resize.short_sides=[96]", "data.test_resize.long_side=160", "model.num_classes=2"]
    config = load_config("htc_tiny", [*SMALL, *small, "postprocess.max_per_image=5", *overrides])
    torch.manual_seed(0)
    model = build_detector(config)
    for name, parameter in model.named_parameters():
        if name.endswith("switch.bias"):
            torch.nn.init.constant_(parameter, 1.5 if "layer2.0" in name else switch)
    categories = [Category(7, "cup"), Category(90, "plate")]
    save_checkpoint(path, Checkpoint(config=config, categories=categories, model=model.state_dict()))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "best.pt", *SAC)


def save_image(path: Path, *, width: int = 201, height: int = 133, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def annotate(path: Path, *names: str) -> Path:
    """Two small squares, one large, and what does not count, in an image of 201 x 133."""
    boxes = [[5, 5, 20, 20], [50, 50, 10, 10], [20, 10, 120, 110]]
    corners = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in boxes]
    instances = [
        {"id": i, "image_id": 3, "category_id": 1, "bbox": box, "area": box[2] * box[3], "segmentation": [polygon]}
        for i, (box, polygon) in enumerate(zip(boxes, corners, strict=True), start=1)
    ]
    crowd = {**instances[0], "id": 9, "area": 2000, "iscrowd": 1}
    flat = {**instances[0], "id": 8, "bbox": [5, 5, 0, 9], "area": 0}
    images = [{"id": i, "file_name": name, "height": 133, "width": 201} for i, name in enumerate(names, start=3)]
    categories = [{"id": 1, "name": "square"}]
    path.write_text(json.dumps({"images": images, "annotations": [*instances, crowd, flat], "categories": categories}))
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of one pixel, for tests of numbers and names: to draw them takes longer than all else."""

    def save(target: Path, *arguments: object, **options: object) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(target)

    for name in ("save_sheet", "save_layer"):
        monkeypatch.setattr(f"dsctool.visualize.switch.files.{name}", save)


def row(output: str, name: str) -> list[str]:
    return next(line for line in output.splitlines() if line.startswith(name))[len(name) :].split()


def test_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "a.png")
    save_image(tmp_path / "photos" / "b.jpg", width=40, height=90, seed=1)
    out = tmp_path / "new" / "out"
    result = run(checkpoint, tmp_path / "photos", "--output", out, "--json", out / "x" / "numbers.json")
    assert result.exit_code == 0, result.stderr
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == ["maps/a.npz", "maps/b.npz", "sheets/a.png", "sheets/b.png", "x/numbers.json"]
    with np.load(out / "maps" / "b.npz") as maps:
        assert set(maps) == {*LAYERS, "image_size", "input_size"}
        assert maps["image_size"].tolist() == [90, 40]
        assert (maps[LAYERS[0]] == 1.5).all()
        assert (maps[LAYERS[1]] == 0.25).all()
    assert row(result.stdout, "layer") == ["mean", "min", "max", "small", "medium", "large"]
    assert row(result.stdout, LAYERS[0])[:3] == ["1.500"] * 3
    assert row(result.stdout, LAYERS[5])[:3] == ["0.250"] * 3
    assert row(result.stdout, "all layers")[:3] == ["0.458", "0.250", "1.500"]
    numbers = read(out / "x" / "numbers.json")
    assert [layer["layer"] for layer in numbers["layers"]] == LAYERS
    assert numbers["layers"][1]["mean"] == 0.25
    assert numbers["source"] == "detections"
    assert numbers["score_threshold"] == 0.3
    assert [(image["height"], image["width"]) for image in numbers["images"]] == [(133, 201), (90, 40)]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("threshold", ["0", "1"])
def test_detected_objects(checkpoint: Path, tmp_path: Path, threshold: str) -> None:
    words = ("--score-threshold", threshold, "--output", tmp_path / "out", "--json", tmp_path / "numbers.json")
    result = run(checkpoint, save_image(tmp_path / "a.png"), *words)
    assert result.exit_code == 0, result.stderr
    numbers = read(tmp_path / "numbers.json")
    counts = list(numbers["objects"].values())
    assert (sum(counts) > 0) == (threshold == "0")
    for layer, value in zip(numbers["layers"], [1.5] + 5 * [0.25], strict=True):
        for count, inside in zip(counts, (layer["small"], layer["medium"], layer["large"]), strict=True):
            assert inside == (pytest.approx(value) if count else None)
    cells = row(result.stdout, LAYERS[0])[3:]
    assert cells == ["1.500" if count else "-" for count in counts]
    assert row(result.stdout, "detected objects") == [str(count) for count in counts]


@pytest.mark.usefixtures("undrawn")
def test_annotated_objects(checkpoint: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    truth = annotate(tmp_path / "truth.json", "a.png")
    words = ("--output", tmp_path / "out", "--ground-truth", truth, "--json", tmp_path / "numbers.json")
    result = run(checkpoint, image, *words)
    assert result.exit_code == 0, result.stderr
    numbers = read(tmp_path / "numbers.json")
    assert numbers["objects"] == {"small": 2, "medium": 0, "large": 1}
    assert numbers["source"] == "ground truth"
    assert numbers["score_threshold"] is None
    assert row(result.stdout, LAYERS[0])[3:] == ["1.500", "-", "1.500"]
    assert row(result.stdout, "annotated objects") == ["2", "0", "1"]


def test_annotations_of_other_images_do_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    truth = annotate(tmp_path / "truth.json", "b.png")
    result = run(checkpoint, save_image(tmp_path / "a.png"), "--output", tmp_path / "out", "--ground-truth", truth)
    assert result.exit_code == 1
    assert "has no image of this name" in result.stderr
    assert not (tmp_path / "out").exists()


def test_chosen_layers_one_by_one(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = save_image(tmp_path / "a.png")
    result = run(
        checkpoint, image, "--output", out, "--layers", "layer3.*", "--layers", "backbone.layer4.1", "--per-layer"
    )
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (out / "layers" / "a").iterdir()) == [
        "backbone.layer3.0.conv2.png",
        "backbone.layer3.1.conv2.png",
        "backbone.layer4.1.conv2.png",
    ]
    with np.load(out / "maps" / "a.npz") as maps:
        assert set(maps) == {*LAYERS[2:4], LAYERS[5], "image_size", "input_size"}


def test_list(checkpoint: Path) -> None:
    assert run(checkpoint, "--list").stdout.splitlines() == LAYERS
    assert run(checkpoint, "--list", "--layers", "layer3.*").stdout.splitlines() == LAYERS[2:4]


@pytest.mark.usefixtures("undrawn")
def test_a_recursive_pyramid_with_plain_sampling(tmp_path: Path) -> None:
    model = save_model(tmp_path / "best.pt", *SAC, "model.backbone.sac.deformable=false", "model.neck.rfp={}")
    result = run(model, save_image(tmp_path / "a.png", width=97, height=131), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert row(result.stdout, "rfp.backbones.0.layer2.0.conv2")[0] == "1.500"
    with np.load(tmp_path / "out" / "maps" / "a.npz") as maps:
        assert len(maps) == 14


@pytest.mark.usefixtures("undrawn")
def test_a_model_of_boxes(tmp_path: Path) -> None:
    boxes = ["model.cascade.mask_head=null"]
    config = load_config("cascade_mask_rcnn_tiny", [*boxes, *SAC, *(o for o in SMALL if "mask_head" not in o)])
    model = build_detector(config)
    categories = [Category(i, f"c{i}") for i in range(3)]
    save_checkpoint(tmp_path / "m.pt", Checkpoint(config=config, categories=categories, model=model.state_dict()))
    words = ("--output", tmp_path / "out", "--score-threshold", "0")
    result = run(tmp_path / "m.pt", save_image(tmp_path / "a.png", width=96, height=96), *words)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "sheets" / "a.png").is_file()


def test_no_sac_is_one_line(tmp_path: Path) -> None:
    model = save_model(tmp_path / "best.pt")
    for words in (["--list"], [save_image(tmp_path / "a.png"), "--output", tmp_path / "out"]):
        result = run(model, *words)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"dsctool: error: {model}: has no switchable atrous convolution")
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_layer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, save_image(tmp_path / "a.png"), "--output", tmp_path / "out", "--layers", "layer9.*")
    assert result.exit_code == 1
    assert "no SAC layer matches 'layer9.*'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["a.png"], ["--output", "out"]])
def test_wrong_usage(checkpoint: Path, words: list[str]) -> None:
    result = run(checkpoint, *words)
    assert result.exit_code == 2
    assert "--output DIR" in result.stderr


@pytest.mark.usefixtures("undrawn")
def test_an_unreadable_image_is_reported_and_the_others_go_on(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "good.png")
    (tmp_path / "photos" / "cut.jpg").write_bytes(save_image(tmp_path / "whole.jpg").read_bytes()[:2000])
    result = run(checkpoint, tmp_path / "photos", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path / 'photos' / 'cut.jpg'}: cannot be decoded" in result.stderr
    assert "1 of 2 images could not be read" in result.stderr
    assert [path.name for path in (tmp_path / "out" / "sheets").iterdir()] == ["good.png"]
    assert row(result.stdout, LAYERS[0])[0] == "1.500"


def test_no_readable_image(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    result = run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "out", "--json", tmp_path / "numbers.json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert not (tmp_path / "numbers.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_images_in_the_output_folder_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png")
    before = image.read_bytes()
    assert run(checkpoint, tmp_path, "--output", tmp_path, "--per-layer").exit_code == 0
    assert image.read_bytes() == before


def test_stretching_changes_the_drawing_only(tmp_path: Path) -> None:
    model = save_model(tmp_path / "best.pt", *SAC)
    checkpoint = load_checkpoint(model)
    weights = dict(checkpoint.model)
    for name, tensor in weights.items():
        if name.endswith("switch.weight"):
            weights[name] = torch.full_like(tensor, 0.01)
    save_checkpoint(model, Checkpoint(config=checkpoint.config, categories=checkpoint.categories, model=weights))
    image = save_image(tmp_path / "a.png")
    results = [run(model, image, "--output", tmp_path / str(words), *words) for words in ([], ["--stretch"])]
    assert results[0].stdout == results[1].stdout
    plain, stretched = (np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*/sheets/a.png"), reverse=True))
    assert plain.shape == stretched.shape
    assert (plain != stretched).any()


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_run_is_not_mixed_with_a_new_one(checkpoint: Path, tmp_path: Path) -> None:
    one, two, out = save_image(tmp_path / "one.png"), save_image(tmp_path / "two.png"), tmp_path / "out"
    assert run(checkpoint, one, "--output", out, "--per-layer").exit_code == 0
    (out / "sheets/mine.txt").write_text("kept")
    refused = run(checkpoint, two, "--output", out)
    assert refused.exit_code == 1
    assert "has results of an earlier run" in refused.stderr
    assert run(checkpoint, two, "--output", out, "--overwrite").exit_code == 0
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == ["maps/two.npz", "sheets/mine.txt", "sheets/two.png"]
    assert not (out / "layers").exists()


def test_pictures_of_no_run_stay(checkpoint: Path, tmp_path: Path) -> None:
    image, out = save_image(tmp_path / "one.png"), tmp_path / "out"
    mine = save_image(out / "sheets/mine.png")
    (out / "maps").mkdir()
    np.savez(out / "maps/mine.npz", data=np.zeros(3))
    result = run(checkpoint, image, "--output", out, "--overwrite")
    assert result.exit_code == 1
    assert "mine.npz: is in the way, and of no run" in result.stderr
    assert mine.exists()


@pytest.mark.usefixtures("undrawn")
def test_overrides(checkpoint: Path, tmp_path: Path) -> None:
    words = [save_image(tmp_path / "a.png"), "data.test_resize.short_sides=[64]", "--output", tmp_path / "out"]
    assert run(checkpoint, *words).exit_code == 0
    with np.load(tmp_path / "out/maps/a.npz") as maps:
        assert maps["input_size"].tolist() == [64, 97]
