"""The panoptic huddle report: by its definitions, with intervals, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsctool.errors import DataError
from dsctool.evaluation.huddle.panoptic.schema import PanopticHuddleReport, PanopticNumbers
from dsctool.evaluation.huddle.panoptic.study import FusedInstances, study_panoptic_huddles
from dsctool.evaluation.huddle.study import HuddleSettings
from dsctool.evaluation.panoptic import evaluate_panoptic
from dsctool.models.panoptic import FusionSettings
from tests.evaluation.huddle.panoptic.slow_panoptic import Pairs, cell, quality, things_of, view, write_truth
from tests.evaluation.panoptic_scenes import Scene, defined_counts, drawn, perturbed, write

IMAGES = 14


@pytest.fixture(scope="module")
def truths() -> list[Scene]:
    """The last but one has stuff alone."""
    random = np.random.default_rng(11)
    scenes = [scene for scene in (drawn(random) for _ in range(3 * IMAGES)) if things_of(scene)][:IMAGES]
    return [*scenes[:-1], Scene(np.full((9, 9), 5), {5: 92}), scenes[-1]]


@pytest.fixture(scope="module")
def founds(truths: list[Scene]) -> list[list[Scene]]:
    """Of a candidate and of a baseline, which finds a thing where there is none."""
    random = np.random.default_rng(12)
    founds = [[perturbed(random, truth) if things_of(truth) else truth for truth in truths] for _ in range(2)]
    founds[1][-2] = Scene(truths[-2].ids, {5: 1})
    return founds


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, truths: list[Scene], founds: list[list[Scene]]) -> list[Path]:
    folder = tmp_path_factory.mktemp("panoptic")
    results = [write(folder / f"{name}.json", each) for name, each in zip("ab", founds, strict=True)]
    return [write_truth(folder / "gt.json", truths), *results]


def assert_numbers(numbers: PanopticNumbers | None, expected: tuple[float, ...]) -> None:
    assert numbers is not None
    assert list(numbers) == ["PQ", "SQ", "RQ", "n"]
    assert list(numbers.values()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("same_class", [False, True])
def test_cells_and_views_as_defined(
    files: list[Path], truths: list[Scene], founds: list[list[Scene]], same_class: bool
) -> None:
    report = study_panoptic_huddles(*files, settings=HuddleSettings(same_class=same_class)).report
    sides: list[Pairs] = [list(zip(truths, each, strict=True)) for each in founds]
    numbers_of_images = set()
    for each in report["cells"]:
        images = cell(sides[0], each["t_o"], each["t_p"], same_class)
        assert each["images"] == len(images)
        assert each["instances"] == sum(len(things_of(truths[image])) for image in images)
        numbers_of_images.add(len(images))
        for pairs, numbers in zip(sides, (each["things"], each["baseline"]), strict=True):
            if images:
                assert_numbers(numbers, quality(defined_counts([pairs[image] for image in images])))
            else:
                assert numbers is None
    assert len(numbers_of_images) > 4
    for one in report["instance_level"]:
        for pairs, numbers in zip(sides, (one["things"], one["baseline"]), strict=True):
            count, counts = view(pairs, one["t_o"], same_class)
            assert one["instances"] == count
            if count:
                assert_numbers(numbers, quality(counts))
            else:
                assert numbers is None
    for measured in (*report["cells"], *report["instance_level"]):
        own, base, difference = measured["things"], measured["baseline"], measured["difference"]
        if own is not None and base is not None and difference is not None:
            assert difference["PQ"] == own["PQ"] - base["PQ"]
            assert (difference["low"], difference["high"]) == (None, None)


def test_all_images_are_as_eval_has_them(files: list[Path]) -> None:
    """Where nothing is found in an image without things."""
    study = study_panoptic_huddles(*files[:2])
    things = evaluate_panoptic(*files[:2]).things
    assert_numbers(study.report["cells"][0]["things"], (things.pq, things.sq, things.rq, things.n))
    assert study.notes == ("1 of 15 images have no thing (crowds are none): in no cell",)


def bootstrap(files: list[Path], samples: int, seed: int = 3) -> PanopticHuddleReport:
    settings = HuddleSettings(t_o=(-1,), t_p=(0,), bootstrap=samples, seed=seed)
    return study_panoptic_huddles(*files, settings=settings).report


def test_intervals_are_of_images_drawn_with_replacement(
    files: list[Path], truths: list[Scene], founds: list[list[Scene]]
) -> None:
    report = bootstrap(files, 8)
    images = [number for number, truth in enumerate(truths) if things_of(truth)]
    random = np.random.default_rng(3)
    values = []
    for _ in range(8):
        drawn_images = [images[each] for each in random.integers(len(images), size=len(images))]
        own, base = (
            quality(defined_counts([(truths[image], each[image]) for image in drawn_images]))[0] for each in founds
        )
        values.append(own - base)
    difference = report["cells"][0]["difference"]
    assert difference is not None
    assert [difference["low"], difference["high"]] == pytest.approx(np.percentile(values, (2.5, 97.5)), abs=1e-12)
    assert bootstrap(files, 8) == report != bootstrap(files, 8, seed=4)
    long = bootstrap(files, 200)["cells"][0]["difference"]  # in several parts
    assert long is not None
    assert long["low"] is not None
    assert long["high"] is not None
    assert long["PQ"] is not None
    assert long["low"] < long["PQ"] < long["high"]


def test_truth_against_itself_is_perfect_and_nothing_is_minus_one(tmp_path: Path) -> None:
    ids = np.repeat([1, 2], 8).reshape(4, 4)
    path = write_truth(tmp_path / "gt.json", [Scene(ids, {1: 1, 2: 92}), Scene(ids, {1: 3, 2: 1}, frozenset({1, 2}))])
    nothing = write(tmp_path / "dt.json", [Scene(ids * 0, {}), Scene(ids * 0, {})])
    study = study_panoptic_huddles(path, path, nothing)
    first = study.report["cells"][0]
    assert (first["images"], first["instances"]) == (1, 1)
    assert_numbers(first["things"], (1, 1, 1, 1))
    assert_numbers(first["baseline"], (0, 0, 0, 1))
    assert study.report["instance_level"][1]["things"] is None  # none overlaps
    empty = study_panoptic_huddles(nothing, nothing).report
    assert {each["images"] for each in empty["cells"]} == {0}
    assert all(each["things"] is None for each in (*empty["cells"], *empty["instance_level"]))


def test_what_cannot_be(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="overlap is 'mask', but panoptic masks never overlap; use 'box'"):
        study_panoptic_huddles(*files, settings=HuddleSettings(overlap="mask"))
    instances = FusedInstances(tmp_path / "i.json", FusionSettings(pixel="probability"))
    with pytest.raises(DataError, match="COCO results have no mask probabilities"):
        study_panoptic_huddles(*files, instances=instances)
    other = write(tmp_path / "dt.json", [Scene(np.ones((3, 3), dtype=int), {1: 1})])
    with pytest.raises(DataError, match=r"image 1 of .* has no entry in annotations"):
        study_panoptic_huddles(files[0], files[1], other)
