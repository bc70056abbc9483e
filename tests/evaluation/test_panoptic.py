"""Panoptic quality against its definition and against another implementation; what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dsctool
from dsctool.data.panoptic import PanopticFile, read_panoptic
from dsctool.errors import DataError
from dsctool.evaluation.panoptic import CategoryQuality, GroupQuality, PanopticQuality, evaluate_panoptic
from tests.evaluation.panoptic_scenes import Scene, cut, defined_counts, drawn, perturbed, with_odd_file, write

SETS = 200
THING = 1
HALVES = np.repeat([5, 5, 6, 6], 4).reshape(4, 4)
"""Eight pixels each."""


def check_against_definition(quality: PanopticQuality, pairs: list[tuple[Scene, Scene]]) -> None:
    counts = defined_counts(pairs)
    for each in quality.categories:
        tp, fp, fn, iou = counts.get(each.id, (0, 0, 0, 0.0))
        assert (each.tp, each.fp, each.fn) == (tp, fp, fn), each.id
        assert each.iou == pytest.approx(iou, abs=1e-12)


def difference(quality: PanopticQuality, ground_truth: Path, predictions: Path) -> float:
    """The largest one from hotcoco's numbers, of any category and group; counts must be equal."""
    panoptic = pytest.importorskip("hotcoco.panoptic")
    theirs = panoptic.PanopticEval(str(ground_truth), str(predictions))
    theirs.evaluate()
    results = theirs.results()
    pairs = []
    for each in quality.categories:
        other = results["per_class"][each.id]
        assert (each.tp, each.fp, each.fn) == (other["tp"], other["fp"], other["fn"]), each.id
        pairs += [(each.iou, other["iou"]), (each.pq, other["pq"]), (each.sq, other["sq"]), (each.rq, other["rq"])]
    for group, name in ((quality.all, "All"), (quality.things, "Things"), (quality.stuff, "Stuff")):
        other = results[name]
        assert group.n == other["n"]
        pairs += [(group.pq, other["pq"]), (group.sq, other["sq"]), (group.rq, other["rq"])]
    return float(np.abs(np.diff(np.array(pairs, dtype=np.float64))).max())


# --- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
def test_errors_of_every_kind_as_defined_and_as_another_implementation_counts_them(tmp_path: Path, part: int) -> None:
    matches = wrong = missed = excused = 0
    for seed in range(part, SETS, 4):
        random = np.random.default_rng(seed)
        truths = [drawn(random) for _ in range(2)]
        if seed % 5 == 0:
            truths = [with_odd_file(random, scene) for scene in truths]
        pairs = [(truth, perturbed(random, truth)) for truth in truths]
        ground_truth = write(tmp_path / str(seed) / "gt.json", truths)
        predictions = write(tmp_path / str(seed) / "dt.json", [found for _, found in pairs])
        quality = evaluate_panoptic(ground_truth, predictions)
        check_against_definition(quality, pairs)
        assert difference(quality, ground_truth, predictions) <= 1e-12, seed
        matches += sum(each.tp for each in quality.categories)
        wrong += sum(each.fp for each in quality.categories)
        missed += sum(each.fn for each in quality.categories)
        excused += sum(len(found.categories) for _, found in pairs)
    excused -= matches + wrong
    assert min(matches, wrong, missed, excused) > 20  # all of it occurs


@pytest.fixture(scope="module")
def real(real_data: Path) -> PanopticFile:
    return read_panoptic(real_data / "panoptic/coco-panoptic-2img/annotations/panoptic_val2017.json")


def scenes(file: PanopticFile) -> list[Scene]:
    return [
        Scene(
            file.ids(entry).astype(np.int64),
            {segment.id: segment.category_id for segment in entry.segments},
            frozenset(segment.id for segment in entry.segments if segment.is_crowd),
        )
        for entry in file.entries.values()
    ]


def test_real_images_are_found_in_themselves(real: PanopticFile) -> None:
    quality = evaluate_panoptic(real.path, real.path)
    assert quality.all == GroupQuality(1.0, 1.0, 1.0, 8)
    assert quality.things == quality.stuff == GroupQuality(1.0, 1.0, 1.0, 4)
    assert (quality.images, quality.notes) == (2, ())
    assert difference(quality, real.path, real.path) == 0


def test_errors_in_windows_of_real_images(real: PanopticFile, tmp_path: Path) -> None:
    categories = json.loads(real.path.read_text())["categories"]
    whole = scenes(real)
    for seed in range(12):
        random = np.random.default_rng(seed)
        truths = [cut(scene, random) for scene in whole]
        pairs = [(truth, perturbed(random, truth)) for truth in truths]
        ground_truth = write(tmp_path / str(seed) / "gt.json", truths, categories)
        predictions = write(tmp_path / str(seed) / "dt.json", [found for _, found in pairs], categories)
        quality = evaluate_panoptic(ground_truth, predictions)
        check_against_definition(quality, pairs)
        assert difference(quality, ground_truth, predictions) <= 1e-12, seed


PROCESSES = """
import os
from dsctool import cores
from dsctool.errors import DataError
from dsctool.evaluation import panoptic
found = []
for count, panoptic._TOGETHER in ((1, 250), (3, 250), (3, 15)):
    cores._cores = lambda: count
    said = []
    found.append(panoptic.evaluate_panoptic("gt.json", "dt.json", progress=lambda *words: said.append(words)))
assert found[0] == found[1] == found[2] and found[0].images == 40
assert said == [("comparing images", done, 40) for done in (15, 30, 40)]
os.remove("dt/39.png")
try:
    panoptic.evaluate_panoptic("gt.json", "dt.json")
except DataError as error:
    print(error)
"""


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    truths = [drawn(random) for _ in range(40)]
    write(tmp_path / "gt.json", truths)
    write(tmp_path / "dt.json", [perturbed(random, truth) for truth in truths])
    done = subprocess.run([sys.executable, "-c", PROCESSES], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "dt/39.png: no such file (image 39 of dt.json)\n", done.stderr


def test_quality_of_a_category_by_hand() -> None:
    """Three matches of 1.0, 0.8 and 0.6, one FP, two FN."""
    category = CategoryQuality(1, "cup", True, tp=3, fp=1, fn=2, iou=2.4)
    assert (category.pq, category.sq, category.rq) == pytest.approx((2.4 / 4.5, 0.8, 3 / 4.5))
    missed = CategoryQuality(2, "fork", True, tp=0, fp=0, fn=2, iou=0.0)
    absent = CategoryQuality(3, "pea", True, tp=0, fp=0, fn=0, iou=0.0)
    assert (missed.pq, missed.sq, missed.rq) == (0, 0, 0)
    assert (absent.pq, absent.sq, absent.rq) == (-1, -1, -1)
    group = GroupQuality.of([category, missed, absent])
    assert (group.pq, group.sq, group.rq) == pytest.approx((1.2 / 4.5, 0.4, 1.5 / 4.5))
    assert group.n == 2


def test_a_group_without_segments_is_minus_one(tmp_path: Path) -> None:
    scene = Scene(np.full((4, 4), 5), {5: THING})
    quality = evaluate_panoptic(write(tmp_path / "gt.json", [scene]), write(tmp_path / "dt.json", [scene]))
    assert quality.things == GroupQuality(1.0, 1.0, 1.0, 1)
    assert quality.stuff == GroupQuality(-1.0, -1.0, -1.0, 0)
    assert quality.notes == ("-1: no segment of stuff counts",)
    void = Scene(np.zeros((4, 4), dtype=np.int64), {})
    quality = evaluate_panoptic(write(tmp_path / "v.json", [void]), write(tmp_path / "w.json", [void]))
    assert quality.all == quality.things == quality.stuff == GroupQuality(-1.0, -1.0, -1.0, 0)
    assert quality.notes == ("-1: no segment of things counts", "-1: no segment of stuff counts")


def counted(tmp_path: Path, truth: Scene, found: Scene) -> tuple[int, int, int, float]:
    quality = evaluate_panoptic(write(tmp_path / "gt.json", [truth]), write(tmp_path / "dt.json", [found]))
    (only,) = (each for each in quality.categories if each.counted or each.id == THING)
    return only.tp, only.fp, only.fn, only.iou


def test_an_iou_of_one_half_is_no_match(tmp_path: Path) -> None:
    ids = np.where(HALVES == 5, 5, 0)
    truth = Scene(ids, {5: THING}, areas={5: 16})
    assert counted(tmp_path, truth, Scene(ids, {5: THING})) == (0, 1, 1, 0.0)
    truth.areas = {5: 15}
    assert counted(tmp_path / "less", truth, Scene(ids, {5: THING})) == (1, 0, 0, 8 / 15)


def test_void_is_taken_off_the_union_and_a_crowd_is_not(tmp_path: Path) -> None:
    found = Scene(np.full((4, 4), 9), {9: THING})
    void = Scene(np.where(HALVES == 5, 5, 0), {5: THING})
    assert counted(tmp_path / "void", void, found) == (1, 0, 0, 1.0)
    crowd = Scene(HALVES, {5: THING, 6: THING}, frozenset([6]))
    assert counted(tmp_path / "crowd", crowd, found) == (0, 1, 1, 0.0)


def test_half_of_a_prediction_over_void_and_crowd_is_not_yet_excused(tmp_path: Path) -> None:
    found = Scene(np.where(HALVES == 5, 8, 9), {8: THING, 9: THING})
    half = np.array(HALVES)
    half[:, :2] = 0
    half[:, 2:] = 6
    truth = Scene(half, {6: 92})
    quality = evaluate_panoptic(write(tmp_path / "gt.json", [truth]), write(tmp_path / "dt.json", [found]))
    assert {each.id: each.fp for each in quality.categories if each.fp} == {THING: 2}
    truth.ids[0, 2] = 0
    quality = evaluate_panoptic(write(tmp_path / "more" / "gt.json", [truth]), tmp_path / "dt.json")
    assert {each.id: each.fp for each in quality.categories if each.fp} == {THING: 1}


def test_of_several_crowds_of_a_category_the_last_one_counts(tmp_path: Path) -> None:
    found = Scene(np.where(HALVES == 5, 8, 0), {8: THING})
    for order, fp in (([6, 5], 0), ([5, 6], 1)):
        truth = Scene(HALVES, dict.fromkeys(order, THING), frozenset(order))
        assert counted(tmp_path / str(fp), truth, found) == (0, fp, 0, 0.0)


def test_what_is_odd_about_the_files_is_said(tmp_path: Path) -> None:
    truth = Scene(HALVES, {5: THING}, areas={5: 9})
    found = Scene(HALVES, {5: THING, 6: THING})
    quality = evaluate_panoptic(write(tmp_path / "gt.json", [truth]), write(tmp_path / "dt.json", [found, found]))
    areas, unlisted, unused = quality.notes[1:]
    assert areas.startswith(f"{tmp_path / 'gt.json'}: 1 segments have another area in the file than in their PNG")
    assert unlisted == f"{tmp_path / 'gt.json'}: 8 pixels of its PNGs have ids that the file does not list"
    assert unused == f"{tmp_path / 'dt.json'}: 1 images are not in the ground truth, and not looked at"


def test_the_package_has_it(tmp_path: Path) -> None:
    scene = Scene(HALVES, {5: THING, 6: 92})
    path = write(tmp_path / "gt.json", [scene])
    assert dsctool.evaluate_panoptic(str(path), path).all == GroupQuality(1.0, 1.0, 1.0, 2)


# --- what is refused --------------------------------------------------------------------------------


def edited(path: Path, change: Any) -> Path:
    content = json.loads(path.read_text())
    change(content["annotations"])
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries.pop(1), "image 1 of .*gt.json has no entry in annotations"),
        (
            lambda entries: entries[1]["segments_info"].pop(0),
            "image 1: segment 5 is in the PNG, and not in segments_info",
        ),
        (
            lambda entries: entries[1]["segments_info"].append({"id": 7, "category_id": 1}),
            "image 1: segment 7 is in segments_info, and has no pixels in the PNG",
        ),
        (
            lambda entries: entries[1]["segments_info"][0].update(category_id=2),
            "image 1: segment 5: unknown category: category_id 2 is no category of .*gt.json",
        ),
        (lambda entries: entries[1].update(file_name="9.png"), r"no such file \(image 1 of .*dt.json\)"),
    ],
)
def test_results_that_do_not_fit_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    scene = Scene(HALVES, {5: THING, 6: 92})
    ground_truth = write(tmp_path / "gt.json", [scene, scene])
    predictions = edited(write(tmp_path / "dt.json", [scene, scene]), change)
    with pytest.raises(DataError, match=f"dt.*{said}"):
        evaluate_panoptic(ground_truth, predictions)


def test_maps_of_other_sizes_are_refused(tmp_path: Path) -> None:
    scene = Scene(HALVES, {5: THING, 6: 92})
    ground_truth = write(tmp_path / "gt.json", [scene])
    predictions = write(tmp_path / "dt.json", [Scene(HALVES[:, :3], scene.categories)])
    with pytest.raises(DataError, match=r"0\.png: is 3 x 4 pixels, the ground truth of image 0 is 4 x 4"):
        evaluate_panoptic(ground_truth, predictions)


def test_an_area_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Another implementation divides by zero."""
    truth, found = Scene(HALVES, {5: THING, 6: 92}, areas={5: 0, 6: 8}), Scene(HALVES, {5: THING, 6: 92})
    ground_truth, predictions = write(tmp_path / "gt.json", [truth]), write(tmp_path / "dt.json", [found])
    with pytest.raises(DataError, match="image 0: segment 5 of the ground truth has more pixels than its area, 0"):
        evaluate_panoptic(ground_truth, predictions)


def test_a_map_of_the_truth_that_is_none_is_named(tmp_path: Path) -> None:
    scene = Scene(HALVES, {5: THING, 6: 92})
    ground_truth, predictions = write(tmp_path / "gt.json", [scene]), write(tmp_path / "dt.json", [scene])
    Image.new("P", (4, 4)).save(tmp_path / "gt" / "0.png")
    with pytest.raises(DataError, match=r"gt/0\.png: a panoptic map is a PNG of the kind RGB"):
        evaluate_panoptic(ground_truth, predictions)
    shutil.rmtree(tmp_path / "dt")
    with pytest.raises(DataError, match=r"0\.png: "):
        evaluate_panoptic(ground_truth, predictions)
