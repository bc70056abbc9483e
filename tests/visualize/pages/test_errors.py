"""Files, pictures and the page of the analysis of errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsctool.evaluation.error_analysis.rows import confusion_totals, cost_rows, count_rows, mistake_rows, mistakes
from dsctool.evaluation.error_analysis.schema import ERROR_TYPES
from dsctool.evaluation.error_analysis.study import ErrorStudy, study_errors
from dsctool.visualize.pages.errors.figures import error_figures
from dsctool.visualize.pages.errors.files import write_errors
from dsctool.visualize.pages.errors.page import error_page
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.visualize.pages.test_huddle import PageChecker

FILES = {"errors.json", "errors.png", "confusion.png", "curves.png", "errors.html"}


@pytest.fixture(scope="module")
def study() -> ErrorStudy:
    """Boxes and masks, with candidates."""
    truth = crowded_truth(seed=41)
    results = noisy_results(truth, seed=42)
    return study_errors(truth, results[::2], results)


def test_the_folder(study: ErrorStudy, tmp_path: Path) -> None:
    write_errors(tmp_path, study)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "errors.json").read_text()) == study.report
    for name in ("errors.png", "confusion.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 400
            assert np.asarray(picture.convert("L")).mean() > 150, "on white"


@pytest.mark.parametrize("odd", ["no results", "no instances", "many categories"])
def test_odd_input_is_drawn_too(odd: str, tmp_path: Path) -> None:
    truth = crowded_truth(seed=43)
    results = [] if odd == "no results" else noisy_results(truth, seed=44)
    if odd == "no instances":
        truth["annotations"] = []
    if odd == "many categories":
        truth["categories"] += [{"id": 100 + number, "name": f"kind {number}"} for number in range(60)]
    write_errors(tmp_path, study_errors(truth, results))
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_rows_are_the_numbers_of_the_report(study: ErrorStudy) -> None:
    errors = study.report["bbox"]
    header, rows = cost_rows(errors, study.report)
    assert header == ["instances", "number", "AP50", *ERROR_TYPES, "all wrong", "all not found"]
    assert [row[0].split()[0] for row in rows] == ["all", "small", "medium", "large", "huddled", "lone"]
    assert rows[4][0] == "huddled (overlap > 0.1)"
    first = errors["views"][0]
    assert rows[0][1:4] == [
        str(first["instances"]),
        f"{100 * first['AP50']:.1f}",
        f"{100 * first['errors']['classification']['difference']:.1f}",  # type: ignore[operator]
    ]
    assert rows[3][1:] == ["0", *["-"] * 10], "none is large"
    _, counts = count_rows(errors, study.report)
    assert counts[0][1:] == [str(first["errors"][name]["count"]) for name in ERROR_TYPES]


def test_mistakes_come_in_order(study: ErrorStudy) -> None:
    confusion = study.report["confusion"]
    found = mistakes(confusion)
    assert [each.number for each in found] == sorted((each.number for each in found), reverse=True)
    matrix = np.asarray(confusion["matrix"])
    assert sum(each.number for each in found) == matrix.sum() - np.trace(matrix)
    assert sum(confusion_totals(confusion).values()) == matrix.sum()
    _, rows = mistake_rows(confusion, 2)
    assert len(rows) == 2
    assert not any("(" in text for row in rows for text in row)


def test_bars_are_the_costs_and_all_fit(study: ErrorStudy) -> None:
    plots = error_figures(study.report)["errors.png"].axes
    view = study.report["bbox"]["views"][0]
    widths = [bar.get_width() for bar in plots[0].containers[0]]  # type: ignore[union-attr]
    assert widths == pytest.approx([100 * (view["errors"][name]["difference"] or 0) for name in ERROR_TYPES])
    assert all(plot.dataLim.x1 < plot.get_xlim()[1] for plot in plots)


def test_the_page_is_whole_and_needs_no_network(study: ErrorStudy) -> None:
    text = error_page(study)
    checker = PageChecker()
    checker.feed(text)
    assert checker.open == []
    assert checker.links == []
    for section in ("Types of error", "What was taken for what", "What NMS removed", "Precision over recall"):
        assert section in text
    bare = study_errors(crowded_truth(seed=41), [])
    assert "What NMS removed" not in error_page(bare)


def test_names_cannot_break_the_page() -> None:
    truth = crowded_truth(seed=45)
    for category in truth["categories"]:
        category["name"] = "<b>&"
    assert "<b>&" not in error_page(study_errors(truth, noisy_results(truth, seed=46)))


def test_curves_stay_in_their_frame(study: ErrorStudy) -> None:
    text = error_page(study)
    lines = re.findall(r'<polyline points="([^"]*)"', text)
    assert len(lines) == 6, "three for boxes, three for masks"
    for kind, mine in (("bbox", lines[:3]), ("segm", lines[3:])):
        means = study.report[kind]["curves"]["mean"]  # type: ignore[literal-required]
        for values, line in zip(means.values(), mine, strict=True):
            places = [tuple(map(float, place.split(","))) for place in line.split(" ")]
            assert [x for x, _ in places] == pytest.approx([4 * index for index in range(101)], abs=0.05)
            assert [y for _, y in places] == pytest.approx([240 - 240 * value for value in values], abs=0.05)
