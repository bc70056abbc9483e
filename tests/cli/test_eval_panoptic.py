"""``dsctool eval --panoptic``: what it prints and writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.evaluation.panoptic import evaluate_panoptic
from tests.evaluation.panoptic_scenes import Scene, drawn, perturbed, write


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", "--panoptic", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("panoptic")
    random = np.random.default_rng(3)
    truths = [drawn(random) for _ in range(4)]
    found = [perturbed(random, truth) for truth in truths]
    return write(folder / "gt.json", truths), write(folder / "dt.json", found)


def words_of(files: tuple[Path, Path]) -> list[str | Path]:
    return ["--ground-truth", files[0], "--predictions", files[1]]


def test_the_table_and_the_file_have_what_was_measured(files: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(*words_of(files), "--json", tmp_path / "new" / "pq.json")
    assert result.exit_code == 0, result.stderr
    quality = evaluate_panoptic(*files)
    content = json.loads((tmp_path / "new" / "pq.json").read_text())
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["PQ", "SQ", "RQ", "categories"]
    for line, (name, group) in zip(
        lines[1:], (("all", quality.all), ("things", quality.things), ("stuff", quality.stuff)), strict=True
    ):
        assert 0 < group.pq < 1
        assert line == [name, f"{group.pq:.3f}", f"{group.sq:.3f}", f"{group.rq:.3f}", str(group.n)]
        assert content[name] == {"PQ": group.pq, "SQ": group.sq, "RQ": group.rq, "n": group.n}
    assert content["images"] == 4
    for row, each in zip(content["per_class"], quality.categories, strict=True):
        assert (row["id"], row["TP"], row["FP"], row["FN"], row["iou"]) == (
            each.id,
            each.tp,
            each.fp,
            each.fn,
            each.iou,
        )
        assert (row["PQ"], row["SQ"], row["RQ"]) == (each.pq, each.sq, each.rq)


def test_per_class(files: tuple[Path, Path]) -> None:
    result = run(*words_of(files), "--per-class")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["id", "category", "kind", "PQ", "SQ", "RQ", "TP", "FP", "FN"]
    for each in evaluate_panoptic(*files).categories:
        kind = "thing" if each.is_thing else "stuff"
        numbers = ["-1" if value == -1 else f"{value:.3f}" for value in (each.pq, each.sq, each.rq)]
        assert [str(each.id), each.name, kind, *numbers, str(each.tp), str(each.fp), str(each.fn)] in rows
    assert ["7", "c7", "stuff", "-1", "-1", "-1", "0", "0", "0"] in rows
    assert "-1: no segment of the category counts" in result.stdout


def test_what_cannot_be_measured_is_minus_one(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.json", [Scene(np.full((4, 4), 5), {5: 1})])
    result = run("--ground-truth", path, "--predictions", path)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["stuff", "-1", "-1", "-1", "0"] in rows
    assert "-1: no segment of stuff counts" in result.stdout


def test_json_on_standard_output_is_alone_there(files: tuple[Path, Path]) -> None:
    result = run(*words_of(files), "--json", "-")
    assert json.loads(result.stdout)["all"]["n"] == 6
    assert result.stderr == run(*words_of(files)).stdout


def test_files_that_do_not_fit(files: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(files[1].read_text())
    del content["annotations"][2]
    (tmp_path / "dt.json").write_text(json.dumps(content))
    result = run("--ground-truth", files[0], "--predictions", tmp_path / "dt.json", "--json", tmp_path / "pq.json")
    assert result.exit_code == 1
    assert f"{tmp_path / 'dt.json'}: image 2 of {files[0]} has no entry in annotations" in result.stderr
    assert not (tmp_path / "pq.json").exists()


def test_input_is_not_written_over(files: tuple[Path, Path]) -> None:
    before = files[1].read_bytes()
    result = run(*words_of(files), "--json", files[1])
    assert result.exit_code == 1
    assert "would be written over" in result.stderr
    assert files[1].read_bytes() == before


OTHERS = [
    ["--weights", "x.pth"], ["--data", "x"], ["--split", "train"], ["--tta"], ["--max-dets", "10"],
    ["--areas", "small:0:9"], ["--huddle"], ["--errors", "x"], ["--candidates", "x.json"], ["--test-dev"],
    ["--output", "x"], ["--algorithm", "x"], ["--resume"], ["--overwrite"], ["--precision", "bfloat16"],
    ["--device", "cpu"], ["--huddled-above", "0.2"], ["--score-threshold", "0.5"],
]  # fmt: skip


@pytest.mark.parametrize("words", OTHERS, ids=lambda words: words[0])
def test_options_of_other_measurements_are_refused(files: tuple[Path, Path], words: list[str]) -> None:
    result = run(*words_of(files), *words)
    assert result.exit_code == 2
    assert f"--panoptic cannot have {words[0]}:" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["best.pt", "--data", "x"], "give no CHECKPOINT (best.pt)"),
        (["--ground-truth", "gt.json"], "needs --ground-truth FILE and --predictions FILE"),
        (["--predictions", "dt.json"], "needs --ground-truth FILE and --predictions FILE"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
