"""Pictures of a run and its page, from what is in the folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.huddle.matched import image_precision
from dsctool.visualize.pages.run.page import PAGE, RunPage, run_page
from dsctool.visualize.pages.run.pictures import COUNT, SCORE, fixed_images, read_pictures, thinned, worst_images
from tests.evaluation.crowded import crowded_truth, noisy_results
from tests.runs.test_summary import make_run
from tests.visualize.pages.test_huddle import PageChecker


@pytest.fixture(scope="module")
def compared() -> Comparison:
    truth = crowded_truth(seed=5, images=6)
    return compare(truth, noisy_results(truth, seed=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compared: Comparison) -> Path:
    """A run after three evaluations, the last one of which goes on."""
    folder = make_run(tmp_path_factory.mktemp("run") / "<b>mine", "optim.lr=0.5", word="stopped")
    (line,) = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"eval"' in line]
    (folder / "last.pt").touch()
    (folder / "best.pt").touch()
    page = RunPage()
    with (folder / "metrics.jsonl").open("a") as file:
        for step in (14, 21):
            file.write(json.dumps(json.loads(line) | {"step": step, "epoch": step / 7, "bbox_AP": step / 50}) + "\n")
    for step in (7, 14, 21, 28):
        page.draw(folder, compared, folder, step=step)
    page.write(folder)
    return folder


def test_the_worst_images_cost_most(folder: Path, compared: Comparison) -> None:
    """As slowly defined: own AP is lost on as many instances as the image has."""
    precision = image_precision(compared, compared.kinds[-1])
    truth = compared.truth
    counts = [int(((truth.image == row) & ~truth.crowd).sum()) for row in range(len(truth.images))]
    lost = {row: (1 - precision[row]) * count for row, count in enumerate(counts) if count}
    wanted = sorted(lost, key=lambda row: -lost[row])[:COUNT]
    made = read_pictures(folder, 21)
    assert made is not None
    names = [compared.source.images[row].file_name for row in wanted]
    assert [each.name for each in made.worst] == names
    assert [each.lost for each in made.worst] == pytest.approx([lost[row] for row in wanted])
    assert [each.instances for each in made.worst] == [counts[row] for row in wanted]
    found = compared.detections
    drawn = [int(((found.image == row) & (found.score >= SCORE)).sum()) for row in wanted]
    assert [each.drawn for each in made.worst] == drawn


def test_images_that_lost_nothing_are_not_shown() -> None:
    assert worst_images(np.array([0.0, 2.0, 0.0, 1.0])) == [1, 3]


def test_the_fixed_images_are_spread_and_have_instances() -> None:
    assert fixed_images(np.array([True] * 9)) == [0, 3, 5, 8]
    assert fixed_images(np.array([False, True, False, True])) == [1, 3]
    assert fixed_images(np.zeros(2, dtype=bool)) == [0, 1], "where there are no instances at all"
    assert thinned([1, 2, 3, 4, 5], 3) == [1, 3, 5]


def test_the_page_is_whole_and_needs_no_network(folder: Path) -> None:
    text = (folder / PAGE).read_text()
    checker = PageChecker()
    checker.feed(text)
    assert checker.open == []
    assert all(link.startswith("data:image/jpeg;base64,") for link in checker.links)
    assert checker.pictures == 4 * (2 + 2) + 4 * 2, "large pairs, two earlier evaluations, and the worst"
    assert "http" not in re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
    assert not list(folder.glob(".*.tmp"))


def test_the_page_says_what_the_files_say(folder: Path) -> None:
    text = (folder / PAGE).read_text()
    for shown in (
        "<b>42.0</b><span>best box AP, after epoch 3</span>",
        "steps of 70, 3 of 10 epochs",
        'class="state down">stopped<',
        ">htc_tiny</code>",
        "<td><code>optim.lr</code></td><td><code>0.0005</code></td><td><code>0.5</code></td>",
        "dsctool train &#39;a b&#39;",
        "<td>3 (best)</td>",
        "object or not, at every anchor",
        "--resume --data DIR",
        "after epoch 3, with what scores",
    ):
        assert shown in text, shown
    assert "<b>mine" not in text.replace("<b>mine.", ""), "names cannot break the page"
    assert "&lt;b&gt;mine" in text


def test_evaluations_that_a_resumed_run_does_again_are_not_shown(folder: Path) -> None:
    """Pictures after step 28 are there, its numbers are not: it was killed in between."""
    assert read_pictures(folder, 28) is not None
    assert "epoch 4" not in run_page(folder)


def test_a_run_without_numbers_has_a_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", word="running")
    (folder / "metrics.jsonl").unlink()
    text = run_page(folder)
    assert "There are no numbers yet." in text
    assert "What it finds" not in text


def test_pictures_of_the_images_themselves(tmp_path: Path, compared: Comparison) -> None:
    for each in compared.source.images:
        Image.new("RGB", (each.width, each.height), (10, 200, 30)).save(tmp_path / each.file_name)
    RunPage().draw(tmp_path, compared, tmp_path, step=3)
    made = read_pictures(tmp_path, 3)
    assert made is not None
    for each in made.fixed:
        with Image.open(tmp_path / "pictures" / each.truth) as picture:
            assert picture.size == (320, 240), "80 x 60 pixels grow"
            colors = picture.convert("RGB").getcolors(1 << 20)
        assert colors is not None
        commonest = max(colors)[1]
        assert all(abs(value - wanted) < 6 for value, wanted in zip(commonest, (10, 200, 30), strict=True))


def test_other_validation_images_after_a_resume(tmp_path: Path, compared: Comparison) -> None:
    """Their truth is their own, and earlier pictures are of the same image or not there."""
    folder = make_run(tmp_path / "run", word="stopped")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    again = json.loads(lines[-1]) | {"step": 9, "epoch": 2.0}
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in [*lines, json.dumps(again)]))
    fewer = crowded_truth(seed=9, images=4)
    for number, image in enumerate(fewer["images"]):
        image["file_name"] = f"other_{number}.png"
    page = RunPage()
    page.draw(folder, compared, folder, step=7)
    kept = {path: path.read_bytes() for path in (folder / "pictures/truth").iterdir()}
    (tmp_path / "other.json").write_text(json.dumps(fewer))
    page.draw(folder, compare(tmp_path / "other.json", noisy_results(fewer, seed=1)), folder, step=9)
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list((folder / "pictures/truth").iterdir())) > len(kept)
    assert '<div class="film">' not in run_page(folder)
