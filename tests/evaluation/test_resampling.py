"""Numbers on images drawn anew are those of a set in which these images come so often."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from dsctool.errors import DataError
from dsctool.evaluation.comparison import compare
from dsctool.evaluation.huddle.measuring import Bootstrap
from dsctool.evaluation.huddle.study import T_O, T_P, huddle_report
from dsctool.evaluation.resampling import NUMBERS, Measured, measure, stacked
from dsctool.terms import KINDS
from tests.evaluation.crowded import Json, crowded_truth, noisy_results, pycocotools_stats

DRAWS = Bootstrap(samples=3, seed=5)


@pytest.fixture(scope="module")
def scenes() -> tuple[Json, list[Json]]:
    truth = crowded_truth(seed=3)
    return truth, noisy_results(truth, seed=4, ties=False)


@pytest.fixture(scope="module")
def measured(scenes: tuple[Json, list[Json]]) -> Measured:
    return measure(compare(*scenes), DRAWS)


def drawn_set(truth: Json, results: list[Json], weights: np.ndarray) -> tuple[Json, list[Json]]:
    """A set with ``weights`` copies of every image."""
    images, annotations, found = [], [], []
    for image, weight in zip(sorted(truth["images"], key=lambda each: each["id"]), weights, strict=True):
        for _ in range(weight):
            number = len(images) + 1
            images.append(image | {"id": number})
            for entries, chosen in ((truth["annotations"], annotations), (results, found)):
                chosen += [
                    copy.deepcopy(each) | {"image_id": number} for each in entries if each["image_id"] == image["id"]
                ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return truth | {"images": images, "annotations": annotations}, found


def test_values_are_pycocotools(scenes: tuple[Json, list[Json]], measured: Measured) -> None:
    for place, kind in enumerate(KINDS):
        expected = np.array(pycocotools_stats(*scenes, kind)[: len(NUMBERS)])
        np.testing.assert_allclose(measured.values[place], np.where(expected < 0, np.nan, expected), atol=1e-12)


def test_cells_are_the_huddle_reports(scenes: tuple[Json, list[Json]], measured: Measured) -> None:
    report = huddle_report(*scenes)
    for cell in report["cells"]:
        place = T_O.index(cell["t_o"]), T_P.index(cell["t_p"])
        assert measured.images[place] == cell["images"]
        for number, kind in enumerate(KINDS):
            own = cell[kind]
            expected = np.nan if own is None or own["AP"] < 0 else own["AP"]
            np.testing.assert_allclose(measured.cells[number][place], expected, atol=1e-12)


def test_drawn_numbers_are_those_of_a_set_of_copies(scenes: tuple[Json, list[Json]], measured: Measured) -> None:
    for weights, drawn, drawn_cells in zip(
        DRAWS.weights(len(scenes[0]["images"]), slice(0, 3)), measured.drawn, measured.drawn_cells, strict=True
    ):
        copies = measure(compare(*drawn_set(*scenes, weights)), Bootstrap())
        np.testing.assert_allclose(drawn, copies.values, atol=1e-12)
        np.testing.assert_allclose(drawn_cells, copies.cells, atol=1e-12)


def test_boxes_alone(scenes: tuple[Json, list[Json]], measured: Measured) -> None:
    truth, results = scenes
    found = measure(compare(truth, [{k: v for k, v in each.items() if k != "segmentation"} for each in results]), DRAWS)
    assert np.isnan(found.values[1]).all()
    assert np.isnan(found.drawn_cells[:, 1]).all()
    assert not np.isnan(found.values[0, 0])


def test_kept_in_a_file(measured: Measured, tmp_path: Path) -> None:
    measured.save(tmp_path / "measured.npz")
    again = Measured.load(tmp_path / "measured.npz")
    assert again.key == measured.key
    np.testing.assert_array_equal(again.drawn, measured.drawn)
    np.testing.assert_array_equal(again.images, measured.images)
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"other\.npz: holds no measured results"):
        Measured.load(tmp_path / "other.npz")


def test_other_images_are_not_compared(scenes: tuple[Json, list[Json]], measured: Measured) -> None:
    truth, results = copy.deepcopy(scenes)
    truth["annotations"][0]["bbox"][0] += 1
    with pytest.raises(DataError, match="different images"):
        stacked([measured, measure(compare(truth, results), DRAWS)])
