"""``dsctool predict``: results, ids, overlays, and images that cannot be read."""

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
from dsctool.data.image_files import find_images, identify_images, output_names
from dsctool.data.records import Category, read_annotation_file
from dsctool.errors import DataError
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.models.tiny import NARROW


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *(str(word) for word in words), "--device", "cpu"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


def save_image(path: Path, *, width: int = 90, height: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("b.png", "a.jpg")):
        save_image(tmp_path / "photos" / name, seed=seed)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    out = tmp_path / "new" / "out"
    result = run(checkpoint, tmp_path / "photos", "--output", out, "--score-threshold", "0")
    assert result.exit_code == 0, result.stderr
    table = read(out / "images.json")
    assert [(image["id"], Path(image["file_name"]).name) for image in table["images"]] == [(1, "a.jpg"), (2, "b.png")]
    assert (table["images"][0]["height"], table["images"][0]["width"]) == (60, 90)
    assert table["categories"] == [{"id": 7, "name": "cup"}, {"id": 90, "name": "plate"}]
    results = read(out / "predictions.json")
    assert {entry["image_id"] for entry in results} == {1, 2}
    assert {entry["category_id"] for entry in results} <= {7, 90}
    assert all(entry["segmentation"]["size"] == [60, 90] for entry in results)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["a.jpg", "b.jpg"]
    drawn, original = np.asarray(Image.open(out / "overlays" / "b.jpg")), Image.open(tmp_path / "photos" / "b.png")
    assert drawn.shape == (60, 90, 3)
    assert not np.allclose(drawn, np.asarray(original), atol=60)
    assert sorted(path.name for path in out.iterdir()) == ["images.json", "overlays", "predictions.json"]


def test_image_ids_from_a_table(checkpoint: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "000042.jpg")
    table = {"images": [{"id": 42, "file_name": "000042.jpg", "height": 60, "width": 90}]}
    (tmp_path / "image_info.json").write_text(json.dumps(table))
    out = tmp_path / "out"
    result = run(checkpoint, image, "--output", out, "--images-json", tmp_path / "image_info.json", "--no-overlays")
    assert result.exit_code == 0, result.stderr
    assert {entry["image_id"] for entry in read(out / "predictions.json")} == {42}
    assert sorted(path.name for path in out.iterdir()) == ["images.json", "predictions.json"]
    assert [image["id"] for image in read(out / "images.json")["images"]] == [42]


def test_an_unreadable_image_is_reported_and_the_others_go_on(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "good.png")
    whole = save_image(tmp_path / "whole.jpg", width=300, height=300).read_bytes()
    (tmp_path / "photos" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "loop.jpg").symlink_to("loop.jpg")
    out = tmp_path / "out"
    result = run(checkpoint, tmp_path / "photos", "--output", out)
    assert result.exit_code == 1
    assert f"{tmp_path / 'photos' / 'loop.jpg'}: cannot be read" in result.stderr
    assert f"{tmp_path / 'photos' / 'cut.jpg'}: cannot be decoded" in result.stderr
    assert "2 of 3 images could not be read" in result.stderr
    assert {entry["image_id"] for entry in read(out / "predictions.json")} == {2}
    assert [image["id"] for image in read(out / "images.json")["images"]] == [2]
    assert [path.name for path in (out / "overlays").iterdir()] == ["good.jpg"]


def test_files_of_one_name_have_overlays_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    for seed, folder in enumerate(("left", "right")):
        save_image(tmp_path / folder / "x.png", seed=seed)
    out = tmp_path / "out"
    result = run(checkpoint, tmp_path / "left", tmp_path / "right" / "x.png", "--output", out)
    assert result.exit_code == 0, result.stderr
    overlays = sorted(str(path.relative_to(out)) for path in out.rglob("*.jpg"))
    assert overlays == ["overlays/left/x.jpg", "overlays/right/x.jpg"]


@pytest.mark.parametrize("missing", ["nowhere.jpg", "empty"])
def test_nothing_to_look_at(checkpoint: Path, tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    result = run(checkpoint, tmp_path / missing, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert missing in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_checkpoint(tmp_path: Path) -> None:
    image = save_image(tmp_path / "x.png")
    result = run(tmp_path / "best.pt", image, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "best.pt: no such file" in result.stderr


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("out", False, "is a file; name a folder"),
        ("out/overlays", False, "is a file; name a folder"),
        ("out/predictions.json", True, "is a folder"),
        ("out/images.json", True, "is a folder"),
    ],
)
def test_an_output_in_the_way_is_found_before_anything_runs(
    checkpoint: Path, tmp_path: Path, name: str, folder: bool, said: str
) -> None:
    obstacle = tmp_path / name
    (obstacle if folder else obstacle.parent).mkdir(parents=True, exist_ok=True)
    if not folder:
        obstacle.write_text("kept")
    result = run(checkpoint, save_image(tmp_path / "x.png"), "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert name in result.stderr
    assert said in result.stderr
    assert not list(tmp_path.rglob("*.jpg"))
    assert folder or obstacle.read_text() == "kept"


# --- the library behind it --------------------------------------------------------------------------


def test_every_file_comes_once(tmp_path: Path) -> None:
    one, two = save_image(tmp_path / "a" / "1.png"), save_image(tmp_path / "a" / "2.PNG")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    found = find_images([two, tmp_path / "a", tmp_path / "a" / ".." / "a" / "1.png"])
    assert found == [one, two]


def test_output_names_are_unique_and_stay_inside(tmp_path: Path) -> None:
    paths = [
        tmp_path / "a" / "x.png",
        tmp_path / "a" / "x.jpg",
        tmp_path / "a" / "X.JPG",
        tmp_path / "a" / ".." / ".." / "y.png",
        tmp_path / "a" / "x.jpg.png",
        tmp_path / "a" / "..png",
    ]
    names = output_names(paths)
    assert len({str(name).casefold() for name in names}) == len(paths)
    for name in names:
        assert not name.is_absolute()
        assert ".." not in name.parts
    assert output_names([]) == []
    assert output_names([Path("only.png")])[0] == Path("only")


def test_a_table_that_does_not_fit(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text(
        json.dumps({"images": [{"id": i, "file_name": f"{folder}/x.png"} for i, folder in enumerate("ab")]})
    )
    assert identify_images([tmp_path / "b" / "x.png"], read_annotation_file(table, needed=["images"]))[0].id == 1
    for path, said in ((Path("c/x.png"), "has no image of this name"), (Path("y.png"), "has no image of this name")):
        with pytest.raises(DataError, match=said):
            identify_images([path], read_annotation_file(table, needed=["images"]))
    table.write_text(json.dumps({"images": [{"id": 1, "file_name": "x.png"}, {"id": 2, "file_name": "x.png"}]}))
    with pytest.raises(DataError, match="has 2 images of this name"):
        identify_images([tmp_path / "x.png"], read_annotation_file(table, needed=["images"]))


@pytest.mark.parametrize("text", ["", "[]", '{"images": [{"id": "1", "file_name": "x.png"}]}', '{"images": 3}'])
def test_a_broken_table_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(DataError, match=r"table\.json"):
        identify_images([tmp_path / "x.png"], read_annotation_file(tmp_path / "table.json", needed=["images"]))


@pytest.mark.parametrize("name", ["fast_dsc_tiny", "htc_tiny"])
def test_stages(name: str, tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, name)
    out = tmp_path / "out"
    result = run(path, save_image(tmp_path / "a.png"), "--output", out, "--stages", "--score-threshold", "0")
    assert result.exit_code == 0, result.stderr
    with Image.open(out / "stages" / "a.jpg") as strip:
        pixels = np.asarray(strip).astype(int)
    assert pixels.shape[1] > 4 * pixels.shape[0], "five panels side by side"
    panel = pixels.shape[1] // 5
    middle = [pixels[60:-10, 10 + panel * i : 10 + panel * i + 380] for i in range(5)]
    for i in range(1, 5):
        assert np.abs(middle[i] - middle[0]).mean() > 3, f"panel {i} has nothing drawn on it"


def test_every_image_is_decoded_once(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the model, the overlay and the strip."""
    for seed, name in enumerate(("a.png", "b.png")):
        save_image(tmp_path / "photos" / name, seed=seed)
    opened: list[Path] = []
    plain = Image.open

    def counting(file: Any, *args: Any, **kwargs: Any) -> Image.Image:
        opened.append(Path(file))
        return plain(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", counting)
    result = run(checkpoint, tmp_path / "photos", "--output", tmp_path / "out", "--stages")
    assert result.exit_code == 0, result.stderr
    assert opened == [tmp_path / "photos" / name for name in ("a.png", "b.png")]


def test_help_says_what_is_an_override() -> None:
    text = run("--help").stdout
    assert "IMAGE_OR_DIR... KEY=VALUE..." in text
    assert "postprocess.nms=mask --output found --overwrite" in text


def test_stages_need_masks(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, "cascade_mask_rcnn_tiny", "model.cascade.mask_head=null")
    result = run(path, save_image(tmp_path / "a.png"), "--output", tmp_path / "out", "--stages")
    assert result.exit_code == 1
    assert "--stages needs masks" in result.stderr


def checkpoint_of(folder: Path, name: str, *overrides: str) -> Path:
    """A detector with random weights."""
    few = ["model.rpn.test_max_proposals=40", "postprocess.max_per_image=5"]
    config = load_config(name, [*NARROW, *few, "data.test_resize.short_sides=[64]", *overrides])
    torch.manual_seed(0)
    model = build_detector(config, num_classes=2)
    categories = [Category(7, "cup"), Category(90, "plate")]
    path = folder / "best.pt"
    save_checkpoint(path, Checkpoint(config=config, categories=categories, model=model.state_dict()))
    return path


def test_several_views(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "photos" / "a.png")
    sides = ["data.tta.short_sides=[48,64]", "data.test_resize.short_sides=[48]"]
    boxes = []
    for name, words in (("plain", [sides[1]]), ("union", ["--tta", *sides]), ("average", ["--tta", *sides])):
        merge = ["data.tta.merge=average"] if name == "average" else []
        result = run(checkpoint, tmp_path / "photos", *words, *merge, "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        boxes.append([entry["bbox"] for entry in read(tmp_path / name / "predictions.json")])
    assert all(boxes)
    assert boxes[0] != boxes[1] != boxes[2] != boxes[0]
    result = run(checkpoint, tmp_path / "photos", "--tta", "--stages", "--output", tmp_path / "x")
    assert result.exit_code == 1
    assert "--stages shows the stages of one view" in result.stderr
