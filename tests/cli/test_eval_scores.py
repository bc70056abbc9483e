"""``dsctool eval --counts`` and ``--operating-point``, and ``predict --score-threshold auto`` after it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.counts import study_counts
from dsctool.evaluation.operating_point import study_operating_point
from dsctool.interop.checkpoint import load_checkpoint
from tests.cli.test_evaluate import run, save_tiny, val_categories
from tests.cli.test_predict import run as predict
from tests.evaluation.crowded import crowded_truth, noisy_results


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    folder = tmp_path_factory.mktemp("files")
    truth = crowded_truth(1)
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(noisy_results(truth, 1)))
    return ["--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json"]


def test_two_files(files: list[str | Path], tmp_path: Path) -> None:
    out, stats = tmp_path / "out", tmp_path / "stats.json"
    words = [*files, "--counts", "--operating-point", "--score-threshold", "0.4", "--json", stats]
    result = run(*words, "--output", out)
    assert result.exit_code == 0, result.stderr
    content = json.loads(stats.read_text())
    compared = compare(files[1], files[3])
    study = study_counts(compared, [0.4] * 4)
    assert study.total is not None
    assert content["counts"]["total"]["mae"] == study.total.mae
    assert [each["rmse"] for each in content["counts"]["per_class"]] == [each.errors.rmse for each in study.classes]
    assert sum(each["images"] for each in content["counts"]["densities"]) == len(study.images)
    point = study_operating_point(compared)
    chosen = [each["at"]["threshold"] for each in content["operating_point"]["per_class"]]
    assert chosen == list(point.thresholds or ())
    assert [len(each) for each in content["operating_point"]["all"]["curve"].values()] == [101] * 4
    for said in ("counts per image", "each its own", "best by F1", "at mask IoU 0.5", "out/counts.png"):
        assert said in result.stdout
    with (out / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["found"]) for row in rows) == study.total.found
    assert len(rows) == len(study.images) * 4
    with (out / "operating_point.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5 * 101
    assert {path.name for path in out.iterdir()} == {
        "counts.csv", "counts.png", "operating_point.csv", "operating_point.png"
    }  # fmt: skip
    again = run(*words, "--output", out)
    assert again.exit_code == 1
    assert "has results of an earlier run" in again.stderr


def test_json_on_standard_output_is_alone_there(files: list[str | Path]) -> None:
    result = run(*files, "--counts", "--operating-point", "--best-by", "count", "--json", "-")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["operating_point"]["best_by"] == "count"
    assert "best by the error of counts" in result.stderr


def test_nothing_to_count_and_nothing_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsctool.visualize.counts.save_figures", lambda folder, figures: None)
    empty = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "pea"}], "annotations": []}
    (tmp_path / "gt.json").write_text(json.dumps(empty))
    (tmp_path / "dt.json").write_text("[]")
    words = ["--ground-truth", tmp_path / "gt.json", "--predictions", tmp_path / "dt.json", "--output", tmp_path / "o"]
    result = run(*words, "--counts", "--operating-point")
    assert result.exit_code == 0, result.stderr
    assert "there is no best threshold" in result.stdout
    (tmp_path / "gt.json").write_text(json.dumps({**empty, "images": []}))
    result = run(*words, "--counts", "--operating-point", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert "counts: the ground truth has no images" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--store"], "--store and --best-by are for --operating-point"),
        (["--counts", "--best-by", "count"], "--store and --best-by are for --operating-point"),
        (["--operating-point", "--store"], "--store writes into a CHECKPOINT"),
        (["--counts", "--score-threshold", "auto"], "auto takes the thresholds of a CHECKPOINT"),
        (["--score-threshold", "auto"], "auto is for --counts alone"),
        (["--score-threshold", "2"], "give a number from 0 to 1, or auto"),
        (["--output", "x"], "--output: only with --test-dev, --counts or --operating-point"),
        (["--panoptic", "--counts"], "--panoptic cannot have --counts"),
    ],
)
def test_wrong_usage(files: list[str | Path], words: list[str], said: str) -> None:
    result = run(*files, *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_from_validation_to_new_pictures(synthetic_root: Path, tmp_path: Path) -> None:
    """The thresholds go by class, also where a data set lists its categories otherwise than the model."""
    categories = val_categories(synthetic_root)
    checkpoint = save_tiny(tmp_path / "best.pt", categories[::-1])
    before = torch.load(checkpoint, weights_only=True)
    stats, found = tmp_path / "stats.json", tmp_path / "dt.json"
    words: list[Any] = [checkpoint, "--data", synthetic_root, "--device", "cpu"]
    refused = run(*words, "--counts", "--score-threshold", "auto")
    assert refused.exit_code == 1
    assert "--operating-point --store finds them" in refused.stderr
    out = tmp_path / "out"
    images = sorted((synthetic_root / "val").iterdir())[:2]
    refused = predict(checkpoint, *images, "--output", out, "--score-threshold", "auto")
    assert refused.exit_code == 1
    assert "has no thresholds of its own for --score-threshold auto" in refused.stderr
    assert not out.exists()

    result = run(*words, "--operating-point", "--best-by", "count", "--store", "--json", stats, "--predictions", found)
    assert result.exit_code == 0, result.stderr
    assert f"{checkpoint}: thresholds stored" in result.stdout
    after = torch.load(checkpoint, weights_only=True)
    assert after.keys() - before.keys() == {"operating_point"}
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    told = json.loads(stats.read_text())["operating_point"]
    assert "training images" not in result.stdout
    assert told["split"] == "val"
    chosen = {each["name"]: each["at"]["threshold"] for each in told["per_class"]}
    point = load_checkpoint(checkpoint).operating_point
    assert point is not None
    assert dict(zip([each.name for each in categories[::-1]], point.thresholds, strict=True)) == chosen
    assert (point.best, point.kind, point.iou, point.images) == ("count", "segm", 0.5, 4)

    result = run(*words, "--counts", "--score-threshold", "auto", "--json", stats)
    assert result.exit_code == 0, result.stderr
    counted = json.loads(stats.read_text())["counts"]
    assert {each["name"]: each["threshold"] for each in counted["per_class"]} == chosen
    assert counted["total"]["found"] == told["each_its_own"]["found"]

    result = predict(checkpoint, *images, "--output", out, "--table", out / "t.csv", "--score-threshold", "auto")
    assert result.exit_code == 0, result.stderr
    assert "thresholds were found" not in result.stderr
    names = {each.id: each.name for each in categories}
    shown = [
        each["score"]
        for each in json.loads((out / "predictions.json").read_text())
        if each["score"] >= chosen[names[each["category_id"]]]
    ]
    with (out / "t.csv").open(newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == shown
    words = ["postprocess.nms=mask", "data.workers=0", "--no-overlays", "--score-threshold", "auto"]
    result = predict(checkpoint, images[0], *words, "--output", tmp_path / "other")
    assert "were found with nothing changed, now it runs with postprocess.nms=mask: scores may mean" in result.stderr


def test_thresholds_of_training_images_are_said_to_be(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint, stats = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root)), tmp_path / "stats.json"
    words = ["--operating-point", "--best-by", "count", "--store", "--device", "cpu", "--json", stats]
    result = run(checkpoint, "--data", synthetic_root, "--split", "train", *words)
    assert result.exit_code == 0, result.stderr
    said = "thresholds were found on the training images (--split train), which a model scores higher than images"
    assert f"these {said}" in result.stdout
    assert json.loads(stats.read_text())["operating_point"]["split"] == "train"
    point = load_checkpoint(checkpoint).operating_point
    assert point is not None
    assert (point.split, point.images) == ("train", 8)
    image = synthetic_root / "val" / "000001.jpg"
    again = ["--output", tmp_path / "out", "--no-overlays", "--score-threshold", "auto", "postprocess.nms=mask"]
    result = predict(checkpoint, image, *again)
    assert f"{checkpoint}: its {said}" in result.stderr
    assert "now it runs with postprocess.nms=mask" in result.stderr, "both"


def test_nothing_is_stored_in_files_of_other_programs(synthetic_root: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "htc.pth")
    before = (tmp_path / "htc.pth").read_bytes()
    result = run(tmp_path / "htc.pth", "--data", synthetic_root, "--operating-point", "--store")
    assert result.exit_code == 1
    assert "no dsctool checkpoint, so nothing can be stored in it" in result.stderr
    assert (tmp_path / "htc.pth").read_bytes() == before
