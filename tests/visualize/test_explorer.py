"""The explorer: what is in its file, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.visualize.pages.explorer.page import ERRORS, LOWEST, Looked, Thing, outline_path, shown_as, write_explorer

CLASSES = ["apple", "<pear & co>"]


def mask_of(bitmap: np.ndarray[Any, Any]) -> Any:
    return coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))


def square(x: int, y: int, side: int, *, size: tuple[int, int] = (100, 200)) -> Any:
    bitmap = np.zeros(size, bool)
    bitmap[y : y + side, x : x + side] = True
    return mask_of(bitmap)


def thing(label: int, score: float | None, x: int, side: int) -> Thing:
    return Thing(label, score, (x, 10, side, side), square(x, 10, side))


def picture(name: str, *things: Thing, truth: list[Thing] | None = None) -> Looked:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8))
    return Looked(name, (100, 200), shown_as(image), things, truth)


def parsed(path: Path) -> tuple[list[Any], Any]:
    text = path.read_text()
    pictures = re.findall(r'<script type="application/json" class="picture">(.*)</script>', text)
    (about,) = re.findall(r'<script type="application/json" id="about">(.*)</script>', text)
    return [json.loads(each) for each in pictures], json.loads(about)


def some_page(path: Path) -> Path:
    found = [thing(0, 0.9, 10, 20), replace(thing(1, 0.5, 60, 40), error="duplicate"), thing(0, 0.2, 120, 50)]
    pictures = [
        picture("a.png", *found, truth=[replace(thing(0, None, 12, 20), finder=0)]),
        picture("</script><b>.png", replace(thing(1, 0.31, 5, 5), error="background"), truth=[]),
        picture("empty.png", truth=[]),
    ]
    assert write_explorer(path, pictures, CLASSES, thresholds={0: 0.3, 1: 0.3}, title="<Fruit>") == 3
    return path


def test_the_file_has_all_numbers_and_no_text_is_read_as_html(tmp_path: Path) -> None:
    pictures, about = parsed(some_page(tmp_path / "page.html"))
    assert [each["name"] for each in pictures] == ["a.png", "</script><b>.png", "empty.png"]
    assert [row["labels"] for row in about["rows"]] == [[0, 1, 0], [1], []]
    assert [row["scores"] for row in about["rows"]] == [[9000, 5000, 2000], [3100], []]
    assert [row["areas"] for row in about["rows"]] == [[400, 1600, 2500], [25], []]
    assert [row["errors"] for row in about["rows"]] == [[-1, 3, -1], [4], []]
    assert [row["finders"] for row in about["rows"]] == [[0], [], []]
    assert [each["name"] for each in about["classes"]] == CLASSES
    assert (about["start"], about["own"], about["truth"], about["lowest"]) == (0.3, None, True, LOWEST)
    assert [len(each["truth"]) for each in pictures] == [1, 0, 0]
    text = (tmp_path / "page.html").read_text()
    assert "<title>&lt;Fruit&gt;</title>" in text
    assert text.count("<b>.png") == 0
    assert "http" not in re.sub(r'"http://www.w3.org/2000/svg"', "", text)  # nothing is fetched


def test_classes_may_start_from_thresholds_of_their_own(tmp_path: Path) -> None:
    write_explorer(tmp_path / "page.html", [picture("a")], CLASSES, thresholds={0: 0.4, 1: 0.2}, title="")
    _, about = parsed(tmp_path / "page.html")
    assert (about["start"], about["own"], about["truth"]) == (0.2, [0.4, 0.2], False)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_filled_by_parity_are_the_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = rng.random((40, 60)) < 0.6  # parts, holes, corners that touch
    path = outline_path(Thing(0, 1.0, (0, 0, 60, 40), mask_of(bitmap)), tolerance=0)
    inside = np.zeros((40, 60), bool)
    ys, xs = np.mgrid[:40, :60] + 0.5
    for ring in re.findall(r"M([^z]*)z", path):
        points = [tuple(map(float, point.split())) for point in ring.split("L")]
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            if y1 != y2:
                between = (np.minimum(y1, y2) < ys) & (ys < np.maximum(y1, y2))
                inside ^= between & (x1 + (ys - y1) * (x2 - x1) / (y2 - y1) < xs)
    np.testing.assert_array_equal(inside, bitmap)


def test_outlines_get_simpler_with_the_picture(tmp_path: Path) -> None:
    ys, xs = np.mgrid[:1000, :1000]
    disc = Thing(0, 1.0, (0, 0, 1000, 1000), mask_of((ys - 500) ** 2 + (xs - 500) ** 2 < 480**2))
    assert len(outline_path(disc, tolerance=4)) < len(outline_path(disc, tolerance=1)) / 1.5
    box = replace(disc, box=(1.25, 2.0, 3.0, 4.0), mask=None)
    assert outline_path(box, tolerance=1) == "M1.2 2.0h3.0v4.0h-3.0z"
    assert box.area == 12


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where it and Playwright are installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["wide, light", "phone, dark"])
def opened(request: pytest.FixtureRequest, browser: Any, tmp_path: Path) -> Iterator[Any]:
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(some_page(tmp_path / "page.html").as_uri())
    yield page
    assert faults == []
    context.close()


def moved(page: Any, value: float) -> None:
    page.eval_on_selector(
        "#score", "(it, value) => { it.value = value; it.dispatchEvent(new Event('input')); }", str(value)
    )


def shown(page: Any) -> int:
    return page.eval_on_selector_all(".thing", "all => all.filter(each => each.style.display !== 'none').length")


def counts(page: Any) -> list[str]:
    return [page.inner_text(f"#class-count-{label}") for label in range(len(CLASSES))]


def test_the_slider_moves_outlines_and_counts(opened: Any) -> None:
    assert opened.inner_text("#value") == "0.30"
    assert (shown(opened), counts(opened)) == (2, ["1, 1", "1, 2"])
    moved(opened, 0.05)
    assert (shown(opened), counts(opened)) == (3, ["2, 2", "1, 2"])
    assert opened.inner_text("#sum") == "4 shown in 3 pictures."
    moved(opened, 0.91)
    assert (shown(opened), counts(opened)) == (0, ["0, 0", "0, 0"])
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_filters_by_class_and_size(opened: Any) -> None:
    moved(opened, 0.05)
    opened.uncheck("#class-0")
    assert (shown(opened), counts(opened)) == (1, ["2, 2", "1, 2"])
    opened.check("#class-0")
    opened.uncheck("#size-1")
    assert (shown(opened), counts(opened)) == (1, ["1, 1", "0, 1"])


def test_keys_go_through_the_pictures(opened: Any) -> None:
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text("#name") == "</script><b>.png"
    assert shown(opened) == 1
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")  # no further than the last
    assert opened.inner_text("#name") == "empty.png"
    assert shown(opened) == 0
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("ArrowUp")
    assert opened.inner_text("#value") == "0.32"
    assert shown(opened) == 0


def test_pointing_at_an_instance_names_it_and_truth_can_be_shown(opened: Any) -> None:
    outlines = "#truth-outlines"
    assert not opened.is_visible(".true")
    opened.keyboard.press("t")
    assert opened.is_visible(".true")
    assert opened.eval_on_selector(outlines, "it => it.children.length") == 2
    opened.hover(".thing[data-row='1']")
    assert opened.inner_text("#tip") == "<pear & co>, score 0.500, 1,600 px, error: duplicate"


def wrong(page: Any) -> dict[str, str]:
    return {name: page.inner_text(f"#error-count-{number}") for number, name in enumerate([*ERRORS, "not found"])}


def test_errors_are_marked_and_follow_the_threshold(opened: Any) -> None:
    nothing = dict.fromkeys([*ERRORS, "not found"], "0, 0")
    assert wrong(opened) == {**nothing, "duplicate": "1, 1", "background": "0, 1"}
    assert opened.locator(".thing.wrong").count() == 0
    opened.keyboard.press("e")
    assert opened.locator(".thing.wrong").count() == 1
    opened.uncheck("#error-3")
    assert shown(opened) == 1
    moved(opened, 0.95)  # now nothing is shown of what found the one instance
    assert wrong(opened) == {**nothing, "not found": "1, 1"}
    assert opened.is_visible(".true.lost")


def test_ten_thousand_instances_do_not_stall(browser: Any, tmp_path: Path) -> None:
    def pictures() -> Iterator[Looked]:
        shown_one = picture("").shown
        for number in range(500):
            things = [thing(each % 2, 0.05 + 0.045 * each, 5 * each, 20) for each in range(20)]
            yield Looked(f"{number}.png", (100, 200), shown_one, things)

    write_explorer(tmp_path / "page.html", pictures(), CLASSES, thresholds={0: 0.3, 1: 0.3}, title="Many")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.getElementById('sum').textContent.includes('500 pictures')")
    took = page.evaluate(
        """() => { const slider = document.getElementById("score"), start = performance.now();
        for (let step = 0; step < 20; step += 1) {
          slider.value = step / 20; slider.dispatchEvent(new Event("input")); document.body.offsetHeight; }
        return (performance.now() - start) / 20; }"""
    )
    assert took < 100
    page.close()
