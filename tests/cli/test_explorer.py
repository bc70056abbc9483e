"""``--page`` of ``dsctool predict`` and ``dsctool eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from tests.cli.test_evaluate import save_tiny, val_categories
from tests.cli.test_predict import checkpoint_of, save_image
from tests.visualize.test_explorer import parsed


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*(str(word) for word in words), "--device", "cpu"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


@pytest.mark.parametrize("words", [[], ["--tiles", "64"]])
def test_predict_writes_what_it_found(checkpoint: Path, tmp_path: Path, words: list[str]) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        save_image(tmp_path / "photos" / name, width=120, seed=seed)
    out = tmp_path / "out"
    result = run("predict", checkpoint, tmp_path / "photos", *words, "--page", "--no-overlays", "--output", out)
    assert result.exit_code == 0, result.output
    assert f"{out / 'explorer.html'}: 2 pictures" in result.stdout
    pictures, about = parsed(out / "explorer.html")
    results = json.loads((out / "predictions.json").read_text())
    for number, picture in enumerate(pictures, start=1):
        own = [each for each in results if each["image_id"] == number and each["score"] >= about["lowest"]]
        row = about["rows"][number - 1]
        assert row["scores"] == [round(10_000 * each["score"]) for each in own]
        assert [about["classes"][label]["name"] for label in row["labels"]] == [
            {7: "cup", 90: "plate"}[each["category_id"]] for each in own
        ]
        assert len(picture["found"]) == len(own)
        assert picture["size"] == [120, 60]
        assert "truth" not in picture
    assert sum(len(row["labels"]) for row in about["rows"]) > 3
    assert sorted(path.name for path in out.iterdir()) == ["explorer.html", "images.json", "predictions.json"]
    result = run("predict", checkpoint, tmp_path / "photos", *words, "--no-overlays", "--output", out, "--overwrite")
    assert result.exit_code == 0, result.output
    assert not (out / "explorer.html").exists()


def test_a_run_without_a_page_is_not_gone_on_with(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    words = [checkpoint, tmp_path / "a.png", tmp_path / "b.png", "--no-overlays", "--output", tmp_path / "out"]
    assert run("predict", *words).exit_code == 1
    result = run("predict", *words, "--page", "--resume")
    assert result.exit_code == 1
    assert "it had other page" in result.stderr
    save_image(tmp_path / "b.png", seed=1)
    assert run("predict", *words, "--page", "--overwrite").exit_code == 0
    assert len(parsed(tmp_path / "out" / "explorer.html")[0]) == 2


def annotations_of(root: Path) -> Path:
    return next((root / "annotations").glob("instances_val*.json"))


def test_eval_has_the_truth_beside_it(synthetic_root: Path, tmp_path: Path) -> None:
    best = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    result = run("eval", best, "--data", synthetic_root, "--page", tmp_path / "page.html", "--json", "-")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) >= {"bbox", "segm"}  # alone there
    pictures, about = parsed(tmp_path / "page.html")
    content = json.loads(annotations_of(synthetic_root).read_text())
    assert [picture["name"] for picture in pictures] == [image["file_name"] for image in content["images"]]
    assert about["truth"]
    wanted = [
        sum(each["image_id"] == image["id"] and not each["iscrowd"] for each in content["annotations"])
        for image in content["images"]
    ]
    assert [len(picture["truth"]) for picture in pictures] == wanted


def test_eval_of_files_has_no_pictures(synthetic_root: Path, tmp_path: Path) -> None:
    truth = annotations_of(synthetic_root)
    (tmp_path / "results.json").write_text("[]")
    words = ["--ground-truth", truth, "--predictions", tmp_path / "results.json", "--page", tmp_path / "page.html"]
    result = CliRunner().invoke(app, ["eval", *map(str, words)])
    assert result.exit_code == 2
    assert "--page are for running a model" in " ".join(result.stderr.split())
