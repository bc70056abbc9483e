"""``dsctool data merge``, ``diff`` and ``rank`` as a stranger uses them: from results to more training data."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from tests.cli.test_predict import checkpoint_of, save_image
from tests.data.tiny import tiny_content, write_tiny


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def corrected(root: Path, split: str = "default") -> Path:
    """A set with the tiny set's images, one of its instances removed, one moved and one new."""
    content = tiny_content()
    del content["annotations"][1]
    moved = [12, 10, 32, 10, 32, 30, 12, 30]
    content["annotations"][0] |= {"bbox": [12, 10, 20, 20], "segmentation": [moved]}
    new = {"id": 50, "image_id": 7, "category_id": 5, "bbox": [40, 5, 10, 10], "area": 100, "iscrowd": 0}
    content["annotations"].append({**new, "segmentation": [[40, 5, 50, 5, 50, 15, 40, 15]]})
    files = write_tiny(root, content)
    files.images.rename(root / split)
    files.annotations.rename(root / "annotations" / f"instances_{split}.json")
    return root


def test_correct_merge_check(tmp_path: Path) -> None:
    before, after = tmp_path / "before", corrected(tmp_path / "after")
    write_tiny(before)
    words = ("merge", before, after, "--split", "train", "--output")
    refused = run(*words, tmp_path / "both")
    assert refused.exit_code == 1
    assert "1 image has other annotations" in refused.stderr
    assert not (tmp_path / "both").exists()
    for choice, count in (("keep", 5), ("first", 3), ("last", 3)):
        done = run(*words, tmp_path / choice, "--shared", choice)
        assert done.exit_code == 0, done.output
        assert f"train: 2 images, 2 of which several had, {count} annotations, 2 classes" in done.stdout
        assert run("check", tmp_path / choice).exit_code == 0
        assert sorted(path.name for path in (tmp_path / choice / "train").iterdir()) == ["a.png", "b.jpg"]
    again = run(*words, tmp_path / "keep", "--shared", "keep")
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


def test_merged_annotations_alone(tmp_path: Path) -> None:
    files = write_tiny(tmp_path / "a")
    shutil.copy(files.annotations, tmp_path / "copy.json")
    done = run("merge", files.annotations, tmp_path / "copy.json", "--output", tmp_path / "new" / "both.json")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "new" / "both.json").read_text())
    assert [len(content[key]) for key in ("images", "annotations", "categories")] == [2, 3, 2]
    assert run("merge", files.annotations, "--output", tmp_path / "x.json").exit_code == 2
    assert run("merge", files.annotations, tmp_path / "no", "--output", tmp_path / "x.json").exit_code == 1
    lost = run("merge", tmp_path / "copy.json", tmp_path / "copy.json", "--output", tmp_path / "x")
    assert "no such file, of" in lost.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "copy.json", "new"]


def test_one_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path / "a")
    after = corrected(tmp_path / "b", split="val")
    done = run("merge", tmp_path / "a", after, "--output", tmp_path / "c")
    assert done.exit_code == 1
    assert "is in split val of" in done.stderr
    assert not (tmp_path / "c").exists()


def test_diff_in_tables_and_json(tmp_path: Path) -> None:
    files, after = write_tiny(tmp_path / "a"), corrected(tmp_path / "b")
    done = run("diff", tmp_path / "a", after, "--json", tmp_path / "d.json")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()[:4]]
    assert rows == [
        ["class", "added", "removed", "moved", "relabelled"],
        ["airplane", "1", "1", "0", "0"],
        ["toothbrush", "0", "0", "1", "0"],
        ["all", "1", "1", "1", "0"],
    ]
    content = json.loads((tmp_path / "d.json").read_text())
    assert [(each["change"], each["before"], each["after"]) for each in content["changes"]] == [
        ("moved", 11, 11),
        ("removed", 12, None),
        ("added", None, 50),
    ]
    assert json.loads(run("diff", files.annotations, files.annotations, "--json", "-").stdout)["changes"] == []
    shutil.copy(files.annotations, tmp_path / "a" / "annotations" / "instances_val.json")
    differ = run("diff", tmp_path / "a", after)
    assert "its splits are default, those of" in differ.stderr


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors with random weights, and three images."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(3):
        save_image(folder / "photos" / f"{seed}.png", seed=seed)
    for name, words in (("one", ()), ("other", ("postprocess.max_per_image=2",))):
        (folder / name).mkdir()
        checkpoint_of(folder / name, "htc_tiny", *words)
    return folder


def ranked(path: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads(path.read_text())["images"]
    return images


def test_rank_by_models_and_by_their_results(models: Path, tmp_path: Path) -> None:
    photos, one, other = models / "photos", models / "one" / "best.pt", models / "other" / "best.pt"
    options = ("--score-threshold", 0, "--device", "cpu", "--json")
    done = run("rank", one, photos, "--against", other, "--csv", tmp_path / "r.csv", *options, tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == [
        "image",
        "disagreement",
        "uncertainty",
        "instances",
        "the",
        "other's",
    ]
    images = ranked(tmp_path / "r.json")
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [image["file_name"] for image in images]
    assert {image["against"] for image in images} == {2}
    for image in images:
        assert image["disagreement"] == pytest.approx(1 - 2 / ((image["instances"] + 2) / 2), abs=1e-4)
    predict = CliRunner().invoke(
        app, ["predict", str(one), str(photos), "--output", str(tmp_path / "out"), "--no-overlays", "--device", "cpu"]
    )
    assert predict.exit_code == 0, predict.output
    words = ("rank", "--predictions", tmp_path / "out/predictions.json", photos, "--against", other)
    mixed = run(*words, *options, tmp_path / "m.json")
    assert mixed.exit_code == 0, mixed.output
    assert ranked(tmp_path / "m.json") == images


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give a checkpoint and images"),
        (("best.pt",), "give a checkpoint and images"),
        (("--predictions", "p.json", "--against", "best.pt"), "needs the images as well"),
        (("--predictions", "p.json", "photos"), "name no images"),
    ],
)
def test_rank_says_what_is_missing(models: Path, words: tuple[str, ...], said: str) -> None:
    done = run("rank", *(models / word if word == "photos" else word for word in words))
    assert done.exit_code == 2
    assert said in done.stderr
