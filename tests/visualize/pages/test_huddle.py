"""Files and pages of the huddle report."""

from __future__ import annotations

import csv
import json
import tomllib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from dsctool.evaluation.huddle.rows import cell_rows, difference, paper_rows
from dsctool.evaluation.huddle.study import HuddleSettings, HuddleStudy, study_huddles
from dsctool.evaluation.rows import points
from dsctool.visualize.pages.html import HeatCell, HeatMap, environment, scaled, symbols
from dsctool.visualize.pages.huddle.figures import heat_maps
from dsctool.visualize.pages.huddle.files import as_csv, write_report
from dsctool.visualize.pages.huddle.gallery import chosen_images, gallery
from dsctool.visualize.pages.huddle.page import report_page
from tests.evaluation.crowded import crowded_truth, noisy_results


@pytest.fixture(scope="module")
def study() -> HuddleStudy:
    """Two results compared, with intervals."""
    truth = crowded_truth(seed=41)
    first, second = noisy_results(truth, seed=42), noisy_results(truth, seed=43)
    return study_huddles(truth, first, second, settings=HuddleSettings(bootstrap=5))


@pytest.fixture(scope="module")
def lone_study() -> HuddleStudy:
    """One result, boxes only."""
    truth = crowded_truth(seed=41)
    boxes = [{k: v for k, v in each.items() if k != "segmentation"} for each in noisy_results(truth, seed=42)]
    return study_huddles(truth, boxes)


# --- files ------------------------------------------------------------------------------------------


def test_the_folder(study: HuddleStudy, tmp_path: Path) -> None:
    write_report(tmp_path, study)
    names = {"huddle.json", "huddle.csv", "ap.png", "difference.png", "images.png", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "huddle.json").read_text()) == study.report
    for name in ("ap.png", "difference.png", "images.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 300


def test_without_a_baseline_there_is_no_difference(lone_study: HuddleStudy, tmp_path: Path) -> None:
    write_report(tmp_path, lone_study)
    assert not (tmp_path / "difference.png").exists()
    text = (tmp_path / "report.html").read_text()
    assert "Candidate minus baseline" not in text
    assert "Where the results are worst" in text
    assert "Mask AP" not in text


def test_csv(study: HuddleStudy) -> None:
    rows = list(csv.DictReader(as_csv(study.report).splitlines()))
    assert [row["view"] for row in rows] == ["cell"] * 30 + ["instances"] * 6
    for row, cell in zip(rows, study.report["cells"], strict=False):
        assert (float(row["t_o"]), float(row["t_p"]), int(row["images"])) == (cell["t_o"], cell["t_p"], cell["images"])
        if cell["bbox"] is None:
            assert row["box_AP"] == row["mask_difference_low"] == ""
        else:
            assert float(row["box_AP"]) == cell["bbox"]["AP"]
            assert float(row["baseline_mask_AP75"]) == cell["baseline"]["segm"]["AP75"]  # type: ignore[index]
            assert float(row["mask_difference_low"]) == cell["difference"]["segm"]["low"]  # type: ignore[index]


# --- numbers ----------------------------------------------------------------------------------------


def test_the_table_of_the_paper(study: HuddleStudy) -> None:
    header, rows = paper_rows(study.report)
    assert header[1:] == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert [row[0] for row in rows] == ["-1", "0", "0.1", "0.2", "0.3", "0.4"]
    assert rows[0][2:] == ["-"] * 4
    first = study.report["cells"][0]["difference"]
    assert rows[0][1] == " / ".join(points(first[kind]["AP"]) for kind in ("bbox", "segm"))  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [(0.0241, "2.4", "+2.4"), (-0.003, "-0.3", "−0.3"), (-0.0001, "0.0", "0.0"), (None, "-", "-")],  # noqa: RUF001
)
def test_points(value: float | None, plain: str, signed: str) -> None:
    assert (points(value), points(value, sign=True)) == (plain, signed)


def test_colours_of_differences_are_centred_on_zero(study: HuddleStudy) -> None:
    """The cell farthest from zero is the most colourful, blue above zero and orange below it."""
    image = heat_maps(study.report)["difference.png"].axes[0].images[0].get_array()
    assert image is not None
    for row, cells in enumerate(cell_rows(study.report["cells"]).values()):
        for column, cell in enumerate(cells):
            value = None if cell is None else difference(cell, "bbox")
            red, _, blue = image[row, column][:3]
            assert (blue - red) * (value or 0.0) >= 0, value
            assert value is None or abs(value) < 0.01 or abs(blue - red) > 0.01, value


def test_shares_are_on_one_scale() -> None:
    small, large = (HeatMap("", "", ["a", "b"], [("", [HeatCell("", share=share), None])]) for share in (2.0, 8.0))
    shares = [[cell and cell.share for cell in each.rows[0][1]] for each in scaled([small, large])]
    assert shares == [[0.25, None], [1.0, None]]
    assert scaled([HeatMap("", "", [], [])])[0].rows == []


# --- page -------------------------------------------------------------------------------------------


class PageChecker(HTMLParser):
    """Open elements, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.pictures += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(study: HuddleStudy, tmp_path: Path) -> None:
    write_report(tmp_path, study, gallery_size=3)
    text = (tmp_path / "report.html").read_text()
    checker = PageChecker()
    checker.feed(text)
    assert checker.open == []
    assert checker.pictures == 9
    assert all(link.startswith("data:image/jpeg;base64,") for link in checker.links)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert 'name="viewport"' in text


def test_names_cannot_break_the_page() -> None:
    truth = crowded_truth(seed=44)
    for image in truth["images"]:
        image["file_name"] = "<b>&\"'.png"
    study = study_huddles(truth, noisy_results(truth, seed=45))
    text = report_page(study, gallery(study, count=1), score_threshold=0.3)
    assert '<b>&"' not in text
    assert "&lt;b&gt;&amp;" in text


def test_pieces() -> None:
    pieces = environment().get_template("pieces.html").module
    cells = [HeatCell("2.0", share=3.0, hue="less", small="<1>…2", title='"'), None]
    text = pieces.heat_table(HeatMap("Box <b>", "T_O", ["0"], [("1", cells)]))  # type: ignore[attr-defined]
    assert "--share:1.000;--hue:var(--less)" in text
    assert 'title="&#34;"' in text
    assert "&lt;1&gt;…<wbr>2" in text
    assert "Box &lt;b&gt;" in text
    assert "<i>T</i><sub>O</sub>" in text
    assert symbols("a_b <T_P>") == "a_b &lt;<i>T</i><sub>P</sub>&gt;"
    chart = pieces.bar_chart("Counts", [("none", 0), ("<some>", 4)])  # type: ignore[attr-defined]
    assert chart.count("width:") == 2
    assert "width:100.00%" in chart
    assert "&lt;some&gt;" in chart


def test_a_template_that_lacks_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="named"):
        environment().get_template("huddle.html").render()


def test_the_templates_are_package_data() -> None:
    repository = Path(__file__).parents[3]
    settings = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = repository / "dsctool" / "visualize" / "pages"
    listed = {path for pattern in settings["package-data"]["dsctool.visualize.pages"] for path in package.glob(pattern)}
    assert {path for path in package.rglob("*") if path.suffix in (".html", ".css")} <= listed


# --- gallery ----------------------------------------------------------------------------------------


def test_images_that_differ_most_come_first(study: HuddleStudy) -> None:
    assert study.baseline is not None
    differences = np.abs(study.candidate.image_precision - study.baseline.image_precision)
    chosen = chosen_images(study, 100)
    assert len(chosen) > 3
    assert all(differences[one] >= differences[other] for one, other in pairwise(chosen))
    assert min(differences[chosen]) > 0
    assert chosen_images(study, 2) == chosen[:2]


def test_panels(study: HuddleStudy, tmp_path: Path) -> None:
    for image in study.truth.images:
        Image.new("RGB", (80, 60), (10, 200, 30)).save(tmp_path / image.file_name)
    with_images, plain = gallery(study, images=tmp_path, count=2), gallery(study, images=tmp_path / "no", count=2)
    for one, other in zip(with_images, plain, strict=True):
        assert [panel.role for panel in one.panels] == ["Ground truth", "Baseline", "Candidate"]
        assert one.change == pytest.approx(one.panels[2].precision - one.panels[1].precision)  # type: ignore[operator]
        assert one.panels[0].shown == one.instances >= one.huddled > 0
        for panel, bare in zip(one.panels, other.panels, strict=True):
            assert panel.picture.size == bare.picture.size == (320, 240)
            assert np.abs(np.asarray(panel.picture, int) - np.asarray(bare.picture, int)).max() > 20


def test_the_score_threshold(study: HuddleStudy) -> None:
    shown = [
        sum(panel.shown for entry in gallery(study, count=3, score_threshold=threshold) for panel in entry.panels[1:])
        for threshold in (0.0, 0.5, 1.0)
    ]
    assert shown[0] > shown[1] > shown[2] == 0
