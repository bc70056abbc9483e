"""``dsctool huddle-report`` and ``dsctool eval --huddle``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.evaluation.huddle.study import huddle_report
from dsctool.evaluation.protocol import Protocol
from tests.cli.test_evaluate import save_tiny, val_categories
from tests.evaluation.crowded import crowded_truth, noisy_results

FILES = {"huddle.json", "huddle.csv", "ap.png", "images.png", "report.html"}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gt.json``, ``a.json`` and ``b.json``. Not to be written to."""
    root = tmp_path_factory.mktemp("huddle")
    truth = crowded_truth(seed=51)
    (root / "gt.json").write_text(json.dumps(truth))
    (root / "a.json").write_text(json.dumps(noisy_results(truth, seed=52)))
    (root / "b.json").write_text(json.dumps(noisy_results(truth, seed=53)))
    return root


def test_files_against_a_baseline(folder: Path, tmp_path: Path) -> None:
    output, copy = tmp_path / "new" / "report", tmp_path / "copy.json"
    words = ["--ground-truth", folder / "gt.json", "--predictions", folder / "a.json", "--baseline", folder / "b.json"]
    options = ["--overlap", "iomin", "--same-class", "--bootstrap", "4", "--seed", "2"]
    result = run("huddle-report", *words, *options, "--output", output, "--json", copy)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in output.iterdir()} == FILES | {"difference.png"}
    files = (folder / "gt.json", folder / "a.json", folder / "b.json")
    expected = huddle_report(*files, overlap="iomin", same_class=True, bootstrap=4, seed=2)
    assert json.loads((output / "huddle.json").read_text()) == json.loads(copy.read_text()) == expected
    assert "box / mask AP minus the baseline's" in result.stdout
    assert "95 % interval, mask" in result.stdout
    assert str(output / "report.html") in result.stdout


@pytest.mark.usefixtures("undrawn")
def test_the_table_is_printed_as_in_the_paper(folder: Path, tmp_path: Path) -> None:
    result = run(
        *("huddle-report", "--ground-truth", folder / "gt.json", "--predictions", folder / "a.json"),
        *("--t-o", "-1,0.1", "--t-o", "0.3", "--t-p", "0,0.25", "--gallery", "0", "--output", tmp_path),
    )
    assert result.exit_code == 0, result.stderr
    cells = json.loads((tmp_path / "huddle.json").read_text())["cells"]
    assert [(cell["t_o"], cell["t_p"]) for cell in cells] == [(o, p) for o in (-1, 0.1, 0.3) for p in (0, 0.25)]
    lines = result.stdout.splitlines()
    texts = [f"{100 * cell['bbox']['AP']:.1f} / {100 * cell['segm']['AP']:.1f}" for cell in cells[:4]]
    assert lines[1].split() == ["T_O", "\\", "T_P", "0", "0.25"]
    assert lines[2].split() == ["-1", *texts[0].split(), "-"]
    assert lines[3].split() == ["0.1", *texts[2].split(), *texts[3].split()]


def test_checkpoints(synthetic_root: Path, tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        save_tiny(tmp_path / name, val_categories(synthetic_root))
    output = tmp_path / "report"
    words = ["--predictions", tmp_path / "a.pt", "--baseline", tmp_path / "b.pt", "--data", synthetic_root]
    result = run("huddle-report", *words, "--device", "cpu", "--output", output)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in output.iterdir()} == FILES | {"difference.png", "predictions.json", "baseline.json"}
    annotations = next((synthetic_root / "annotations").glob("instances_val*.json"))
    results = output / "predictions.json"
    assert json.loads((output / "huddle.json").read_text()) == huddle_report(annotations, results, results)


@pytest.mark.parametrize("role", ["--predictions", "--baseline"])
def test_an_input_in_the_place_of_results(synthetic_root: Path, tmp_path: Path, role: str) -> None:
    """A checkpoint's results would replace those that they are compared with."""
    model = save_tiny(tmp_path / "new.pt", val_categories(synthetic_root))
    other, name = ("--baseline", "baseline.json") if role == "--predictions" else ("--predictions", "predictions.json")
    (tmp_path / name).write_text("[]")
    words = ["huddle-report", role, tmp_path / name, other, model, "--data", synthetic_root, "--device", "cpu"]
    result = run(*words, "--output", tmp_path, "--overwrite")
    assert result.exit_code == 1
    assert f"{tmp_path / name}: would be written over" in result.stderr
    assert "name another --output" in result.stderr
    assert (tmp_path / name).read_text() == "[]"


@pytest.mark.usefixtures("undrawn")
def test_a_stale_table_in_the_folder(synthetic_root: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "a.pt", val_categories(synthetic_root))
    image = {"id": 1, "file_name": "elsewhere.png", "height": 1, "width": 1}
    (tmp_path / "images.json").write_text(json.dumps({"images": [image], "categories": []}))
    words = ["--predictions", tmp_path / "a.pt", "--data", synthetic_root, "--device", "cpu", "--output", tmp_path]
    assert "(images.json)" in run("huddle-report", *words).stderr
    result = run("huddle-report", *words, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "images.json").exists()


def test_eval_with_huddles(folder: Path, tmp_path: Path) -> None:
    words = ["eval", "--ground-truth", folder / "gt.json", "--predictions", folder / "a.json"]
    result = run(*words, "--huddle", "--json", tmp_path / "stats.json")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "stats.json").read_text())["huddle"] == huddle_report(
        folder / "gt.json", folder / "a.json"
    )
    assert "T_O \\ T_P" in result.stdout
    assert "T_O" not in run(*words).stdout


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_against_results_under_other_settings(synthetic_root: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "a.pt", val_categories(synthetic_root))
    (tmp_path / "b.json").write_text("[]")
    words = ["--predictions", tmp_path / "a.pt", "--baseline", tmp_path / "b.json", "--data", synthetic_root]
    options = ["postprocess.max_per_image=3", "--device", "cpu", "--output", tmp_path / "report"]
    result = run("huddle-report", *words, *options)
    assert result.exit_code == 0, result.stderr
    counts = Counter(each["image_id"] for each in json.loads((tmp_path / "report/predictions.json").read_text()))
    assert set(counts.values()) == {3}
    assert not (tmp_path / "report/baseline.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "report"],
        ["--output", "report", "--predictions", "gt.json"],
        ["--output", "report", "--ground-truth", "gt.json"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "gt.json", "--data", "folder"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "a.pt"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "gt.json", "--baseline", "a.pt"],
        ["--output", "report", "--predictions", "gt.json", "--data", "folder"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "gt.json", "postprocess.nms=mask"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "gt.json", "--t-o", "0,x"],
        ["--output", "report", "--ground-truth", "gt.json", "--predictions", "gt.json", "--overlap", "boxes"],
        ["--ground-truth", "gt.json", "--predictions", "gt.json"],
    ],
)
def test_wrong_usage(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gt.json").write_text("{}")
    Path("a.pt").write_bytes(b"PK")
    assert run("huddle-report", *words).exit_code == 2
    assert not Path("report").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 4}, "result 0: image id 4"),
        ({"score": float("nan")}, "result 0: score is nan"),
        ({"segmentation": {"size": [60, 81], "counts": [4860]}}, "result 0: RLE size is [60, 81]"),
        ({"segmentation": []}, "result 1 has a 'segmentation', result 0 has none"),
    ],
)
def test_results_that_cannot_be_used(folder: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    results = json.loads((folder / "a.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps([results[0] | change, *results[1:]]))
    words = ["--ground-truth", folder / "gt.json", "--predictions", folder / "a.json"]
    result = run("huddle-report", *words, "--baseline", tmp_path / "bad.json", "--output", tmp_path / "report")
    assert result.exit_code == 1
    assert str(tmp_path / "bad.json") in result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "report").iterdir()) == []


def test_help_has_examples() -> None:
    text = run("huddle-report", "--help").stdout
    assert "dsctool huddle-report --predictions a/best.pt" in text


def test_an_earlier_report_is_not_mixed_with_a_new_one(folder: Path, tmp_path: Path) -> None:
    """Nor are the results removed that it is about."""
    for name in ("difference.png", "baseline.json", "mine.png"):
        (tmp_path / name).write_text("left by somebody")
    results = tmp_path / "predictions.json"
    results.write_text((folder / "a.json").read_text())
    words = ["huddle-report", "--ground-truth", folder / "gt.json", "--predictions", results, "--output", tmp_path]
    result = run(*words)
    assert result.exit_code == 1
    assert "has results of an earlier run (baseline.json and 1 more)" in result.stderr
    assert run(*words, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"mine.png", "predictions.json"}
    assert results.read_text() == (folder / "a.json").read_text()


@pytest.mark.usefixtures("undrawn")
def test_other_limits(folder: Path, tmp_path: Path) -> None:
    words = ["--ground-truth", folder / "gt.json", "--predictions", folder / "a.json", "--output", tmp_path]
    result = run("huddle-report", *words, "--max-dets", "1")
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "huddle.json").read_text())
    assert report == huddle_report(folder / "gt.json", folder / "a.json", protocol=Protocol(max_dets=(1,)))
    assert report != huddle_report(folder / "gt.json", folder / "a.json")
    assert "detections that count per image and class: 1; COCO counts 100" in result.stdout
