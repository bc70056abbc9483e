"""Tables and page of an ablation."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dsctool.evaluation.ablation import AblationReport, RowReport, Timed, estimate_rows, most_crowded
from dsctool.evaluation.huddle.study import T_O, T_P
from dsctool.evaluation.resampling import NUMBERS, Measured
from dsctool.runs.history import History
from dsctool.visualize.pages.ablation.page import ablation_page
from dsctool.visualize.pages.ablation.tables import (
    as_csv,
    as_json,
    as_latex,
    crowded_text,
    differences_table,
    growth_table,
    means_table,
)

DRAWS = 40
MINUS = "\N{MINUS SIGN}"


def measured(level: float, seed: int, growth: float = 0.0) -> Measured:
    """Of a row whose AP is about ``level``, on the same draws for all rows; no image has large instances.

    growth: from the first to the last subset that has images.
    """
    images = np.random.default_rng(0).normal(0, 0.02, DRAWS)
    own = level + 0.01 * np.random.default_rng(seed).normal()
    values = np.full((2, len(NUMBERS)), own)
    values[:, -1] = np.nan
    cells = np.full((2, len(T_O), len(T_P)), own)
    cells[:, -1, -2] += growth
    cells[:, -1, -1] = np.nan
    counts = np.full((len(T_O), len(T_P)), 12)
    counts[-1, -1] = 0
    moved = images[:, None, None]
    return Measured(values, values + moved, cells, cells + moved[..., None], counts, "same")


def row(name: str, title: str, **changes: object) -> RowReport:
    plain = {
        "changes": (), "of": None, "rate": 1e-3, "factor": 1.0, "tried": {}, "seconds": 60.0,
        "time": Timed(0.1, 0.09, 0.2), "failed": {}, "estimates": None,
    }  # fmt: skip
    return RowReport(name=name, title=title, **(plain | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> AblationReport:
    runs = {
        "base": {seed: measured(0.30, seed, growth=0.02) for seed in range(3)},
        "better": {seed: measured(0.36, seed + 10, growth) for seed, growth in enumerate((0.05, 0.06, 0.10))},
        "alike": {seed: measured(0.30, seed + 20) for seed in range(2)},
    }
    estimates = {each.name: each for each in estimate_rows(runs, "base")}
    rows = [
        row("base", "HTC", estimates=estimates["base"], tried={0.5: 0.2, 1.0: None}),
        row("better", "+ A & B_1", estimates=estimates["better"], changes=("model.x=1",), time=Timed(0.2, 0.2, 0.2)),
        row("alike", "<other>", estimates=estimates["alike"], failed={"alike, seed 2": "out of memory"}),
        row("none", "nothing yet", time=None, seconds=None),
    ]
    return AblationReport(
        "parts", "What parts give", "base", (0, 1, 2), DRAWS, 12, measured(0, 0).images.tolist(), rows
    )


def test_rows_are_compared_over_the_seeds_that_both_have(report: AblationReport) -> None:
    (better, changes), (alike, _) = report.compared
    assert better.estimates is not None
    assert better.estimates.seeds == (0, 1, 2)
    assert alike.estimates is not None
    assert alike.estimates.seeds == (0, 1)
    own = [measured(0.36, seed + 10).values[1, 0] - measured(0.30, seed).values[1, 0] for seed in range(3)]
    assert changes["segm"]["AP"].value == pytest.approx(np.mean(own))
    assert changes["segm"]["AP"].by_images == pytest.approx(0, abs=1e-12)  # the same images moved both


def test_tables(report: AblationReport) -> None:
    header, body = means_table(report, "segm")
    assert header == ["mask", "seeds", *NUMBERS, "ms"]
    assert [line[1] for line in body] == ["3", "3", "2", "0"]
    assert re.fullmatch(r"3\d\.\d ± \d\.\d", body[1][2])
    assert body[0][7] == "-"  # no large instances
    assert body[3][2:] == ["-"] * 7
    _, changes = differences_table(report)
    assert [line[0] for line in changes] == ["+ A & B_1", "<other>"]
    assert re.fullmatch(rf"\+\d\.\d \([+{MINUS}]\d\.\d to \+\d+\.\d\)", changes[0][1])


def test_growth_is_a_difference_of_differences(report: AblationReport) -> None:
    assert report.crowded == (len(T_O) - 1, len(T_P) - 2)  # the last subset has no image
    (better, _), _ = report.compared
    assert better.estimates is not None
    assert better.estimates.cells is not None
    grown = better.estimates.cells.growth["segm"]
    assert grown.value == pytest.approx((0.05 + 0.06 + 0.10) / 3 - 0.02)
    assert grown.by_seeds == pytest.approx(np.std([0.05, 0.06, 0.10], ddof=1) / 3**0.5)
    assert grown.by_images == pytest.approx(0, abs=1e-12)  # the same images moved both
    alone = estimate_rows({"base": {0: measured(0.3, 0)}, "row": {0: measured(0.4, 1, 0.05)}}, "base")[1].cells
    assert alone is not None
    assert alone.growth["bbox"].value == pytest.approx(0.05)
    header, body = growth_table(report)
    assert header == ["row", "box AP", "more than on all", "mask AP", "more than on all"]
    assert body[0][4].startswith("+5.0 (")
    assert crowded_text(report) == "the 12 of 12 images of the highest T_O and T_P (0.4, 0.3)"


def test_few_images_are_no_crowded_subset() -> None:
    assert most_crowded(np.array([[40, 30], [20, 9]])) == (1, 0)
    assert most_crowded(np.array([[4, 3], [4, 2]])) == (1, 0)
    assert most_crowded(np.array([[0, 0], [0, 0]])) == (1, 1)


def test_csv_has_numbers_in_full(report: AblationReport) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [line["row"] for line in lines] == ["base", "better", "alike", "none"]
    assert 0.3 < float(lines[1]["segm_AP"]) < 0.4
    assert lines[0]["segm_AP_minus_reference"] == lines[3]["bbox_AP"] == lines[1]["segm_APl"] == ""
    assert float(lines[1]["segm_AP_low"]) < float(lines[1]["segm_AP_minus_reference"])


def test_latex_is_escaped_and_rectangular(report: AblationReport) -> None:
    text = as_latex(report)
    assert r"+ A \& B\_1 & " in text
    assert r"\textless{}other\textgreater{}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {13}
    assert "NaN" not in text


def test_json_is_strict(report: AblationReport) -> None:
    content = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert content["rows"][0]["tried"] == {"0.5": 0.2, "1": None}
    assert content["rows"][0]["estimates"]["means"]["segm"]["APl"]["value"] is None


def test_page(report: AblationReport, tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 3.0 - step} for step in (1, 2)]
    histories = {"base": [History(lines), History(lines[:1])], "better": [History(lines)]}
    page = ablation_page(report, command="dsctool ablate parts", histories=histories, folder=tmp_path)
    text = re.sub(r"data:image/[^\"]*", "", page)
    found = re.findall(r"<li>(.*): box AP .*, (.*); mask AP .*, (.*)</li>", text)
    assert found == [("+ A &amp; B_1", "better", "better"), ("&lt;other&gt;", "cannot be told", "cannot be told")]
    assert "<p>Compared with HTC:</p>" in text
    assert "alike, seed 2" in text
    assert "more than on all" in text
    assert "nan" not in text.lower()
    assert re.findall(r'(?:src|href)="(?!")', text) == []
    assert (tmp_path / "tradeoff.png").exists()
