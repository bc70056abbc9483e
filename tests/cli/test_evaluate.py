"""``dsctool eval``: both modes, what it prints and writes, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.evaluation.coco import STAT_NAMES, evaluate
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.models.tiny import NARROW


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", *(str(word) for word in words)])


def truth() -> dict[str, Any]:
    box = [10.0, 10.0, 20.0, 20.0]
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": box, "area": 400.0, "iscrowd": 0}
    polygon = [[10, 10, 30, 10, 30, 30, 10, 30]]
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": 64, "width": 64}],
        "categories": [{"id": 3, "name": "cup"}, {"id": 8, "name": "fork"}],
        "annotations": [annotation | {"segmentation": polygon}],
    }


def found(**changes: object) -> list[dict[str, Any]]:
    return [{"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 18], "score": 0.5} | changes]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Ground truth and results on disk."""
    (tmp_path / "gt.json").write_text(json.dumps(truth()))
    (tmp_path / "predictions.json").write_text(json.dumps(found()))
    return tmp_path / "gt.json", tmp_path / "predictions.json"


# --- files ------------------------------------------------------------------------------------------


def test_two_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    ground_truth, predictions = files
    stats = tmp_path / "new" / "stats.json"
    result = run("--ground-truth", ground_truth, "--predictions", predictions, "--json", stats)
    assert result.exit_code == 0
    content = json.loads(stats.read_text())
    assert content == evaluate(ground_truth, predictions)
    assert list(content["bbox"]) == list(STAT_NAMES)
    assert content["segm"] is None
    for name in STAT_NAMES:
        shown = "-1" if content["bbox"][name] == -1 else f"{content['bbox'][name]:.3f}"
        assert any(line.split()[:3] == [name, shown, "-"] for line in result.stdout.splitlines()), name


def test_it_says_why_numbers_are_missing(files: tuple[Path, Path]) -> None:
    shown = run("--ground-truth", files[0], "--predictions", files[1]).stdout
    assert "APm and ARm are -1: the ground truth has no medium annotations" in shown
    assert "APl and ARl are -1" in shown
    assert "APs and" not in shown
    assert "no numbers for masks: the predictions have boxes only" in shown


def test_per_class(files: tuple[Path, Path], tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    result = run("--ground-truth", files[0], "--predictions", files[1], "--per-class", "--json", stats)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["3", "cup", "1", "0.900", "1.000", "1.000", "-", "-", "-"] in rows
    assert ["8", "fork", "0", "-1", "-1", "-1", "-", "-", "-"] in rows
    assert [row["name"] for row in json.loads(stats.read_text())["per_class"]] == ["cup", "fork"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (found(score=float("nan")), "result 0: score is nan"),
        (found(image_id=5), "result 0: image id 5"),
        ({}, "holds a list"),
    ],
)
def test_results_that_cannot_be_used(files: tuple[Path, Path], tmp_path: Path, content: object, said: str) -> None:
    files[1].write_text(json.dumps(content))
    stats = tmp_path / "stats.json"
    result = run("--ground-truth", files[0], "--predictions", files[1], "--json", stats)
    assert result.exit_code == 1
    assert str(files[1]) in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not stats.exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--ground-truth", "gt.json"],
        ["best.pt"],
        ["--data", "folder"],
        ["best.pt", "--ground-truth", "gt.json", "--predictions", "dt.json"],
        ["best.pt", "--data", "folder", "--split", "test"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_folder_as_output_is_refused_first(files: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("--ground-truth", files[0], "--predictions", files[1], "--json", tmp_path)
    assert result.exit_code == 1
    assert "is a folder" in result.stderr


# --- checkpoints ------------------------------------------------------------------------------------


def save_tiny(path: Path, categories: list[Category]) -> Path:
    """A detector with random weights."""
    few = ["model.rpn.test_max_proposals=40", "postprocess.max_per_image=30"]
    config = load_config("htc_tiny", [*NARROW, *few, "data.workers=0", "data.test_resize.short_sides=[64]"])
    torch.manual_seed(0)
    model = build_detector(config, num_classes=len(categories))
    save_checkpoint(path, Checkpoint(config=config, categories=categories, model=model.state_dict()))
    return path


def val_categories(root: Path) -> list[Category]:
    content = json.loads(next((root / "annotations").glob("instances_val*.json")).read_text())
    return sorted((Category(each["id"], each["name"]) for each in content["categories"]), key=lambda each: each.id)


def test_a_checkpoint(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    stats, predictions = tmp_path / "stats.json", tmp_path / "out" / "predictions.json"
    words = [checkpoint, "postprocess.max_per_image=7", "--data", synthetic_root, "--device", "cpu"]
    result = run(*words, "--json", stats, "--predictions", predictions)
    assert result.exit_code == 0, result.stderr
    annotations = next((synthetic_root / "annotations").glob("instances_val*.json"))
    assert json.loads(stats.read_text()) == evaluate(annotations, predictions)
    results = json.loads(predictions.read_text())
    images = {image["id"] for image in json.loads(annotations.read_text())["images"]}
    assert {entry["image_id"] for entry in results} == images
    assert len(results) == 7 * len(images)
    assert all(isinstance(entry["segmentation"]["counts"], str) for entry in results)


def test_a_checkpoint_in_half_precision(synthetic_root: Path, tmp_path: Path) -> None:
    """What it finds is near, and not the same."""
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    found = {}
    for precision in ("float32", "bfloat16"):
        words = [checkpoint, "postprocess.max_per_image=7", "--data", synthetic_root, "--precision", precision]
        result = run(*words, "--device", "cpu", "--predictions", tmp_path / f"{precision}.json")
        assert result.exit_code == 0, result.stderr
        found[precision] = json.loads((tmp_path / f"{precision}.json").read_text())
    assert found["bfloat16"] != found["float32"]
    assert len(found["bfloat16"]) == len(found["float32"])
    scores = [[each["score"] for each in results] for results in found.values()]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_category_ids_are_those_of_the_data(synthetic_root: Path, tmp_path: Path) -> None:
    """Trained under other ids in another order: names tell which is which."""
    own = val_categories(synthetic_root)
    renumbered = [Category(100 - each.id, each.name) for each in reversed(own)]
    checkpoint = save_tiny(tmp_path / "best.pt", renumbered)
    predictions = tmp_path / "predictions.json"
    result = run(checkpoint, "--data", synthetic_root, "--predictions", predictions, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert {entry["category_id"] for entry in json.loads(predictions.read_text())} <= {each.id for each in own}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.unknown=1"], "model.unknown"),
        (["model.backbone.depth=50"], "best.pt"),
        (["--device", "nonsense"], "nonsense"),
        (["data.val.split=nowhere"], "nowhere"),
    ],
)
def test_a_checkpoint_that_cannot_run(synthetic_root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    result = run(checkpoint, *words, "--data", synthetic_root, "--predictions", tmp_path / "predictions.json")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (tmp_path / "predictions.json").exists()


def test_other_categories_are_named(synthetic_root: Path, tmp_path: Path) -> None:
    known = val_categories(synthetic_root)
    checkpoint = save_tiny(tmp_path / "best.pt", [*known[1:], Category(77, "spoon")])
    result = run(checkpoint, "--data", synthetic_root, "--device", "cpu")
    assert result.exit_code == 1
    assert f"Only in the data: {known[0].name}; only in the model: spoon" in result.stderr


def test_classes_that_the_data_lack_are_left_out_with_a_note(synthetic_root: Path, tmp_path: Path) -> None:
    known = val_categories(synthetic_root)
    checkpoint = save_tiny(tmp_path / "best.pt", [Category(0, "spoon"), *known])
    predictions = tmp_path / "predictions.json"
    result = run(checkpoint, "--data", synthetic_root, "--device", "cpu", "--predictions", predictions)
    assert result.exit_code == 0, result.stderr
    assert "has no categories spoon: nothing of them is measured" in result.stderr + result.stdout
    found = {each["category_id"] for each in json.loads(predictions.read_text())}
    assert found <= {category.id for category in known}


def test_a_cut_image_is_found_before_anything_runs(synthetic_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    cut = max((root / "val").iterdir())
    cut.write_bytes(cut.read_bytes()[:-200])
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(root))
    predictions = tmp_path / "predictions.json"
    result = run(checkpoint, "--data", root, "--predictions", predictions, "--device", "cpu")
    assert result.exit_code == 1
    assert f"{cut}: cannot be decoded" in result.stderr
    assert "Traceback" not in result.stderr
    assert not predictions.exists()
    result = run(checkpoint, "data.on_error=skip", "--data", root, "--predictions", predictions, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "(data.on_error=skip): images 1, annotations 0" in result.stderr
    assert len({entry["image_id"] for entry in json.loads(predictions.read_text())}) == 3


def test_an_override_does_not_take_the_semantic_branch_away(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    found = []
    for semantic in ("instances", "none", "stuffthingmaps"):
        predictions = tmp_path / f"{semantic}.json"
        words = [checkpoint, f"data.semantic={semantic}", "--data", synthetic_root, "--predictions", predictions]
        result = run(*words, "--device", "cpu")
        assert result.exit_code == 0, result.stderr
        found.append(predictions.read_text())
    assert len(set(found)) == 1


# --- which numbers images have ----------------------------------------------------------------------


def table(folder: Path, **changes: object) -> None:
    """``images.json`` as ``dsctool predict`` leaves it beside its results."""
    image = {"id": 1, "file_name": "photos/1.png", "height": 64, "width": 64} | changes
    (folder / "images.json").write_text(json.dumps({"images": [image], "categories": []}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file_name": "photos/2.png"}, "image 1 is photos/2.png (64 x 64)"),
        ({"height": 65}, "image 1 is photos/1.png (64 x 65)"),
        ({"id": 2}, "in the ground truth has no such image"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "huddle-report"])
def test_other_numbers_are_refused(
    files: tuple[Path, Path], tmp_path: Path, command: str, changes: dict[str, object], said: str
) -> None:
    table(tmp_path, **changes)
    words = [command, "--ground-truth", files[0], "--predictions", files[1]]
    words += ["--output", tmp_path / "report"] if command == "huddle-report" else []
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1
    assert said in result.stderr
    assert f"predict with --images-json {files[0]}" in result.stderr


def test_the_same_numbers_are_measured(files: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--ground-truth", files[0], "--predictions", files[1]]
    without = run(*words)
    table(tmp_path)
    assert run(*words).stdout == without.stdout
    (tmp_path / "images.json").write_text(json.dumps({"images": [{"id": 9, "file_name": "other.png", "license": 1}]}))
    assert run(*words).stdout == without.stdout, "a file of another kind"


def test_other_files_are_not_spoken_of(files: tuple[Path, Path], tmp_path: Path) -> None:
    table(tmp_path, id=2)
    other = files[1].rename(tmp_path / "other.json")
    assert run("--ground-truth", files[0], "--predictions", other).exit_code == 0


@pytest.mark.parametrize(("folder", "code"), [("camB", 1), ("camA", 0), (".", 0)])
def test_folders_tell_images_apart(files: tuple[Path, Path], tmp_path: Path, folder: str, code: int) -> None:
    content = truth()
    content["images"] = [
        content["images"][0] | {"id": number, "file_name": f"cam{'AB'[number - 1]}/1.png"} for number in (1, 2)
    ]
    files[0].write_text(json.dumps(content))
    table(tmp_path, file_name=f"{folder}/1.png" if folder != "." else "1.png")
    result = run("--ground-truth", files[0], "--predictions", files[1])
    assert result.exit_code == code, result.stderr
    assert ("in the ground truth it is camA/1.png" in result.stderr) == bool(code)


def test_a_stale_table_goes_when_the_results_are_written(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    predictions = tmp_path / "predictions.json"
    table(tmp_path, file_name="elsewhere.png")
    words = [checkpoint, "--data", synthetic_root, "--predictions", predictions, "--device", "cpu"]
    refused = run(*words)
    assert refused.exit_code == 1
    assert "has results of an earlier run (images.json)" in refused.stderr
    assert not predictions.exists()
    assert run(*words, "--overwrite").exit_code == 0
    annotations = next((synthetic_root / "annotations").glob("instances_val*.json"))
    assert run("--ground-truth", annotations, "--predictions", predictions).exit_code == 0


def test_predictions_are_measured_by_the_ids_of_the_data(synthetic_root: Path, tmp_path: Path) -> None:
    """The way out that the message names."""
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    truth = tmp_path / "gt.json"
    content = json.loads(next((synthetic_root / "annotations").glob("instances_val*.json")).read_text())
    for entry, key in [(e, "id") for e in content["images"]] + [(e, "image_id") for e in content["annotations"]]:
        entry[key] = 100 - entry[key]
    truth.write_text(json.dumps(content))
    predict = ["predict", checkpoint, synthetic_root / "val", "--no-overlays", "--device", "cpu"]
    for folder, words in (("plain", []), ("named", ["--images-json", truth])):
        done = CliRunner().invoke(app, [str(word) for word in [*predict, "--output", tmp_path / folder, *words]])
        assert done.exit_code == 0, done.stderr
    refused = run("--ground-truth", truth, "--predictions", tmp_path / "plain/predictions.json")
    assert refused.exit_code == 1
    assert "have other numbers than those of" in refused.stderr
    assert run("--ground-truth", truth, "--predictions", tmp_path / "named/predictions.json").exit_code == 0


def test_json_on_standard_output_is_alone_there(files: tuple[Path, Path]) -> None:
    words = ["--ground-truth", files[0], "--predictions", files[1]]
    shown = run(*words)
    result = run(*words, "--json", "-")
    assert json.loads(result.stdout) == evaluate(*files)
    assert result.stderr == shown.stdout


# --- what counts ------------------------------------------------------------------------------------


def test_other_limits_and_areas_are_shown_with_the_numbers(files: tuple[Path, Path], tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    words = ["--max-dets", "500", "--areas", "dot:0:300,blob:300:inf", "--huddle", "--errors", tmp_path / "errors"]
    result = run("--ground-truth", files[0], "--predictions", files[1], "--json", stats, *words)
    assert result.exit_code == 0, result.stderr
    content = json.loads(stats.read_text())
    assert list(content["bbox"]) == [
        "AP", "AP50", "AP75", "AP_dot", "AP_blob", "AR1", "AR10", "AR500", "AR_dot", "AR_blob"
    ]  # fmt: skip
    assert content["max_dets"] == [1, 10, 500]
    assert content["areas"] == {"dot": [0, 300], "blob": [300, 1e10]}
    assert content["huddle"]["max_dets"] == content["errors"]["max_dets"] == 500
    assert [view["name"] for view in content["errors"]["bbox"]["views"]][1:3] == ["dot", "blob"]
    assert result.stdout.count("detections that count per image and class: 500; COCO counts 100") == 3
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["AR500", "0.900", "-", "500", "detections", "per", "image"] in rows
    assert ["AP_blob", "0.900", "-", "blob:", "area", "from", "300"] in rows


@pytest.mark.parametrize("words", [["--max-dets", "none"], ["--max-dets", "0"], ["--areas", "small"]])
def test_limits_that_mean_nothing(files: tuple[Path, Path], words: list[str]) -> None:
    result = run("--ground-truth", files[0], "--predictions", files[1], *words)
    assert result.exit_code == 2
    assert words[1] in result.stderr


def test_a_checkpoint_is_measured_as_its_configuration_says(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    stats = tmp_path / "stats.json"
    words = [checkpoint, "--data", synthetic_root, "--json", stats]
    assert run(*words, "train.eval_max_dets=7").exit_code == 0
    assert json.loads(stats.read_text())["max_dets"] == [1, 7]
    assert run(*words, "train.eval_max_dets=7", "--max-dets", "100").exit_code == 0
    assert "max_dets" not in json.loads(stats.read_text())
