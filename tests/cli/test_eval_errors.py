"""``dsctool eval --errors``, and the candidates that ``predict`` and ``eval`` write for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.engine import progress
from dsctool.evaluation.error_analysis.study import ErrorSettings, study_errors
from tests.cli.test_evaluate import save_tiny, val_categories
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.visualize.pages.test_errors import FILES


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gt.json``, ``dt.json`` and ``candidates.json``. Not to be written to."""
    root = tmp_path_factory.mktemp("errors")
    truth = crowded_truth(seed=51)
    results = noisy_results(truth, seed=52)
    boxes = [{key: value for key, value in each.items() if key != "segmentation"} for each in results]
    for name, content in (("gt", truth), ("dt", results[::2]), ("candidates", boxes)):
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def test_files(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "errors"
    sources = (folder / "gt.json", folder / "dt.json", folder / "candidates.json")
    words = ["eval", "--ground-truth", sources[0], "--predictions", sources[1]]
    options = [
        "--candidates",
        sources[2],
        "--huddled-above",
        "0.2",
        "--score-threshold",
        "0.4",
        "--json",
        tmp_path / "all.json",
    ]
    result = run(*words, "--errors", output, *options)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in output.iterdir()} == FILES
    expected = study_errors(*sources, settings=ErrorSettings(t_o=0.2, score_threshold=0.4)).report
    assert json.loads((output / "errors.json").read_text()) == expected
    assert json.loads((tmp_path / "all.json").read_text())["errors"] == expected
    view = expected["bbox"]["views"][0]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["all", str(view["instances"]), f"{100 * view['AP50']:.1f}"] in [line[:3] for line in lines]
    assert expected["suppression"] is not None
    removed = expected["suppression"]["views"][0]
    assert removed["removed"] > 0
    assert ["all", *(str(removed[key]) for key in ("instances", "before", "after", "removed"))] in lines  # type: ignore[literal-required]
    assert "huddled (overlap > 0.2)" in result.stdout
    assert str(output / "errors.html") in result.stdout
    assert "costs" not in run(*words).stdout


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint(synthetic_root: Path, tmp_path: Path) -> None:
    """Its candidates are written, looked at, and as ``predict`` writes them."""
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    output, candidates, predictions = tmp_path / "errors", tmp_path / "candidates.json", tmp_path / "predictions.json"
    words = [checkpoint, "--data", synthetic_root, "--device", "cpu", "--errors", output]
    # Untrained scores are all alike.
    overrides = ["postprocess.score_threshold=0", "postprocess.max_per_image=5"]
    result = run("eval", *words, *overrides, "--candidates", candidates, "--predictions", predictions)
    assert result.exit_code == 0, result.stderr
    annotations = next((synthetic_root / "annotations").glob("instances_val*.json"))
    report = json.loads((output / "errors.json").read_text())
    assert report == study_errors(annotations, predictions, candidates).report
    found = json.loads(candidates.read_text())
    assert report["suppression"]["candidates"] == len(found) > len(json.loads(predictions.read_text()))
    assert all(set(each) == {"image_id", "category_id", "bbox", "score"} for each in found)
    alone = run("eval", *words, *overrides, "--overwrite")
    assert alone.exit_code == 0, alone.stderr
    assert json.loads((output / "errors.json").read_text())["suppression"] is None


def test_predict_keeps_candidates(synthetic_root: Path, tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    words = ["predict", checkpoint, synthetic_root / "val", "--device", "cpu", "--no-overlays"]
    annotations = next((synthetic_root / "annotations").glob("instances_val*.json"))
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    assert run(*words, "--images-json", annotations, "--output", plain).exit_code == 0
    assert run(*words, "--images-json", annotations, "--output", kept, "--keep-candidates").exit_code == 0
    assert {path.name for path in plain.iterdir()} == {"predictions.json", "images.json"}
    assert {path.name for path in kept.iterdir()} == {"predictions.json", "images.json", "candidates.json"}
    assert (plain / "predictions.json").read_bytes() == (kept / "predictions.json").read_bytes()
    candidates = json.loads((kept / "candidates.json").read_text())
    images = [each["image_id"] for each in candidates]
    assert max(images.count(image) for image in set(images)) <= 1000
    best = {image: max(each["score"] for each in candidates if each["image_id"] == image) for image in set(images)}
    results = json.loads((kept / "predictions.json").read_text())
    assert best == {image: max(each["score"] for each in results if each["image_id"] == image) for image in best}
    study_errors(annotations, kept / "predictions.json", kept / "candidates.json")


@pytest.mark.parametrize(
    "words",
    [
        ["--candidates", "candidates.json"],
        ["--errors", "out", "--score-threshold", "2"],
        ["--errors", "out", "--t-o", "much"],
    ],
)
def test_wrong_usage(folder: Path, words: list[str]) -> None:
    files = ["--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json"]
    assert run("eval", *files, *words).exit_code == 2


def test_candidates_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(
        json.dumps([{"image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 1}])
    )
    files = ["--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json"]
    result = run("eval", *files, "--errors", tmp_path / "out", "--candidates", tmp_path / "bad.json")
    assert result.exit_code == 1
    assert "bad.json: result 0: image id 4" in result.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("clash", ["--json", "--predictions"])
def test_a_file_that_would_be_written_over(folder: Path, tmp_path: Path, clash: str) -> None:
    target = tmp_path / "errors.json"
    target.write_text((folder / "dt.json").read_text())
    options = {"--predictions": folder / "dt.json", clash: target}
    words = [word for pair in options.items() for word in pair]
    result = run("eval", "--ground-truth", folder / "gt.json", *words, "--errors", tmp_path, "--overwrite")
    assert result.exit_code == 1
    assert f"{target}: would be written over" in result.stderr
    assert target.read_text() == (folder / "dt.json").read_text()


def test_a_file_in_the_folders_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    files = ["--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json"]
    result = run("eval", *files, "--errors", tmp_path / "out")
    assert result.exit_code == 1
    assert "is a file; name a folder" in result.stderr


def test_an_earlier_analysis_is_not_mixed_with_a_new_one(folder: Path, tmp_path: Path) -> None:
    words = ["eval", "--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json", "--errors", tmp_path]
    (tmp_path / "confusion.png").write_text("of another run")
    (tmp_path / "mine.png").write_text("kept")
    result = run(*words)
    assert result.exit_code == 1
    assert "has results of an earlier run (confusion.png)" in result.stderr
    assert run(*words, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"mine.png"}


@pytest.mark.usefixtures("undrawn")
def test_the_old_name_of_the_limit(folder: Path, tmp_path: Path) -> None:
    words = ["eval", "--ground-truth", folder / "gt.json", "--predictions", folder / "dt.json"]
    for option in ("--t-o", "--huddled-above"):
        assert run(*words, "--errors", tmp_path / option[2:], option, "0.3").exit_code == 0
    old, new = ((tmp_path / name / "errors.json").read_text() for name in ("t-o", "huddled-above"))
    assert old == new
    assert "--t-o" not in run("eval", "--help").stdout


@pytest.mark.usefixtures("undrawn")
def test_all_analyses_in_several_views(synthetic_root: Path, tmp_path: Path) -> None:
    """They see what the files hold that are written on the way."""
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    views = ["--tta", "data.tta.short_sides=[48,64]"]
    files = {"--predictions": tmp_path / "dt.json", "--candidates": tmp_path / "candidates.json"}
    words = ["eval", checkpoint, *views, "--data", synthetic_root, "--device", "cpu", "--huddle"]
    written = [word for pair in files.items() for word in pair]
    result = run(*words, *written, "--errors", tmp_path / "errors", "--json", tmp_path / "ran.json")
    assert result.exit_code == 0, result.stderr
    truth = next((synthetic_root / "annotations").glob("instances_val*.json"))
    again = run(
        "eval", "--ground-truth", truth, *written, "--huddle", "--errors", tmp_path / "again",
        "--json", tmp_path / "read.json",
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr
    ran, read = (json.loads((tmp_path / name).read_text()) for name in ("ran.json", "read.json"))
    assert ran["errors"]["suppression"] is not None
    assert {key: ran[key] for key in ("bbox", "segm", "errors")} == {
        key: read[key] for key in ("bbox", "segm", "errors")
    }
    assert ran["huddle"]["tables"] == read["huddle"]["tables"] if "tables" in ran["huddle"] else ran["huddle"]
    found, before = (json.loads(path.read_text()) for path in files.values())
    assert {each["image_id"] for each in before} == {each["image_id"] for each in found}
    best = {image: max(each["score"] for each in found if each["image_id"] == image) for image in (1, 2)}
    assert all(max(each["score"] for each in before if each["image_id"] == image) == best[image] for image in best)


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_progress_says_how_many_views(
    command: str, synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0)
    checkpoint = save_tiny(tmp_path / "best.pt", val_categories(synthetic_root))
    what = {
        "eval": ["--data", synthetic_root],
        "predict": [synthetic_root / "val", "--output", tmp_path / "out", "--no-overlays"],
    }
    result = run(command, checkpoint, *what[command], "--tta", "data.tta.short_sides=[48]", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert f"{command} (images x 2 views): 4/4" in result.stderr
