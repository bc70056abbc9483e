"""The benchmark of evaluation, at a hundredth of its size and less."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks import evaluation
from tests.benchmarks.evaluation import Numbers, largest_difference
from tests.benchmarks.evaluation_set import evaluation_set


def test_a_seed_always_makes_the_same_set(tmp_path: Path) -> None:
    first, again, other = (
        evaluation_set(tmp_path / name, images=21, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for here, there, elsewhere in zip(first.files, again.files, other.files, strict=True):
        assert here.read_bytes() == there.read_bytes() != elsewhere.read_bytes()


def test_the_set_is_what_it_says(tmp_path: Path) -> None:
    files = evaluation_set(tmp_path, images=50)
    truth, results, baseline = (json.loads(file.read_text()) for file in files.files)
    assert len(truth["images"]) == 50
    assert len(truth["categories"]) == 80
    assert len(truth["annotations"]) == 34836 * 50 // 5000
    crowds = [annotation["segmentation"] for annotation in truth["annotations"] if annotation["iscrowd"]]
    assert crowds
    assert all(isinstance(crowd["counts"], list) for crowd in crowds)
    assert len(results) == len(baseline) == 50 * 100


def test_a_set_that_is_there_is_found(tmp_path: Path) -> None:
    files = evaluation_set(tmp_path, images=5)
    files.results.write_text("what was there")
    assert evaluation_set(tmp_path, images=5) == files
    assert files.results.read_text() == "what was there"


def test_differences_are_found_wherever_they_are() -> None:
    both: Numbers = {kind: {"stats": [0.5, -1.0], "classes": [[0.1, 0.2], [0.3, 0.4]]} for kind in ("bbox", "segm")}
    assert largest_difference(both, both) == 0
    other: Numbers = {"bbox": both["bbox"], "segm": {"stats": [0.5, -1.0], "classes": [[0.1, 0.2], [0.3, 0.1]]}}
    assert largest_difference(both, other) == pytest.approx(0.3)
    assert largest_difference({kind: {"stats": [0.5, 0.0]} for kind in both}, both) == 1


def test_prints_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--folder", str(tmp_path), "--images", "20", "--rounds", "1", "--only", "pycocotools", "eval"]
    monkeypatch.setattr(sys, "argv", ["evaluation", *words])
    evaluation.main()
    _, *rows = capsys.readouterr().out.splitlines()
    cells = {words[0]: words[1:] for words in map(str.split, rows)}
    assert cells.keys() == {"pycocotools", "eval"}
    for runs, fastest, median, cpu, ratio, peak, difference in cells.values():
        assert runs == "1"
        assert 0 < float(fastest) == float(median)
        assert float(cpu) > 0
        assert ratio == "-"
        assert float(peak) > 20
        assert float(difference) <= 1e-12
