"""The page of the demo, from what its commands leave; that they leave it is tested through the command itself."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from dsctool.cli.predict import predict
from dsctool.evaluation.huddle.study import huddle_report
from dsctool.visualize.pages.demo import DRAWN_FROM, LONGEST, Part, write_demo_page
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.visualize.pages.test_huddle import PageChecker

NAMES = [f"{number} <i>.jpg" for number in range(2)]


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module", params=[0.4, 0.2], ids=["sure", "unsure"])
def score(request: pytest.FixtureRequest) -> float:
    """Of what is found."""
    found: float = request.param
    return found


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, score: float) -> str:
    folder = tmp_path_factory.mktemp("demo")
    write(folder / "found/predictions.json", [{"score": score}])
    for model in ("dsc", "htc"):
        numbers = {"AP": 0.31, "AP50": 0.523, "APs": -1, "APm": 0.2, "APl": 0.4}
        write(folder / model / "stats.json", {"bbox": numbers, "segm": numbers})
        write(folder / model / "metrics.jsonl", {"kind": "train", "step": 7, "step_time": 0.5})
    write(folder / "switch/switch.json", {"overall": {"small": 0.9, "medium": None, "large": 1.2}})
    truth = crowded_truth(seed=61, images=3)
    results = noisy_results(truth, seed=62)
    write(folder / "huddle/huddle.json", huddle_report(truth, results, results[::2]))
    for place in ("scenes/val", "found/overlays", "found/stages", "panoptic/overlays", "switch/sheets"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            file = folder / place / name
            Image.new("RGB", (1500, 30)).save(file.with_suffix(".png") if place.startswith("switch") else file)
    write_demo_page(
        folder / "report.html", folder, images=NAMES, parts=[Part("Make <scenes>", "dsctool data 'a&b'", 12.3)]
    )
    return (folder / "report.html").read_text()


def test_the_page_is_whole_and_needs_no_network(text: str) -> None:
    checker = PageChecker()
    checker.feed(text)
    assert checker.open == []
    assert checker.pictures == 2 + 2 + 2 + 2 + 1
    assert [link for link in checker.links if not link.startswith("data:image/jpeg;base64,")] == ["huddle/report.html"]


def test_the_numbers_are_those_of_the_files(text: str) -> None:
    for shown in (
        "<b>52 %</b>",
        "<b>0.2 min</b>",
        "<td>7 steps of 0.50 s</td>",
        "<b>0.900</b>",
        "<td>- / 20.0 / 40.0</td>",
    ):
        assert shown in text
    assert "<b>-</b><span>mean switch inside medium objects</span>" in text
    assert set(re.findall(r'width="(\d+)"', text)) == {str(LONGEST), "1500"}, "strips are wider"


def test_why_nothing_is_drawn(text: str, score: float) -> None:
    assert ("no score reaches 0.3" in text) == (score < DRAWN_FROM)
    default = float(inspect.signature(predict).parameters["score_threshold"].default)
    assert default == DRAWN_FROM


def test_names_and_commands_cannot_break_the_page(text: str) -> None:
    assert "<scenes>" not in text
    assert "dsctool data &#39;a&amp;b&#39;" in text
    assert " <i>.jpg" not in text
    assert "scene 0 &lt;i&gt;.jpg" in text
