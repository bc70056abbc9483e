"""What fusion loses: by its definition, and which rule loses what."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dsctool.data.panoptic import read_panoptic
from dsctool.errors import DataError
from dsctool.evaluation.huddle.panoptic.losses import fusion_losses
from dsctool.evaluation.huddle.panoptic.schema import FusionReport, PixelLosses
from dsctool.evaluation.huddle.panoptic.study import FusedInstances, study_panoptic_huddles
from dsctool.evaluation.huddle.panoptic.things import things_table
from dsctool.evaluation.huddle.study import HuddleSettings
from dsctool.evaluation.overlaps import largest_overlaps
from dsctool.models.panoptic import FusionSettings, Things
from dsctool.terms import FusionRule
from tests.evaluation.huddle.panoptic.slow_panoptic import (
    as_result,
    binned,
    losses,
    noisy_instances,
    quality,
    write_truth,
)
from tests.evaluation.panoptic_scenes import Scene, defined_counts, drawn

COUNTS = ("true", "found", "kept", "dropped", "cut", "gained")


def measured(
    truth: Path, results: list[object], settings: FusionSettings, t_o: tuple[float, ...] = (0, 0.2, 0.1)
) -> FusionReport:
    path = truth.with_name("instances.json")
    path.write_text(json.dumps(results))
    instances = FusedInstances(path, settings)
    report = study_panoptic_huddles(truth, truth, settings=HuddleSettings(t_o=t_o), instances=instances).report
    assert report["fusion"] is not None
    return report["fusion"]


def test_as_defined(tmp_path: Path) -> None:
    random = np.random.default_rng(21)
    truths = [drawn(random) for _ in range(40)]
    results = [noisy_instances(random, truth, number) for number, truth in enumerate(truths)]
    places = random.permutation(np.repeat(range(len(results)), [len(each) for each in results]))
    left = [iter(each) for each in results]
    mixed = [next(left[place]) for place in places]  # each image's in their order
    fusion = measured(
        write_truth(tmp_path / "gt.json", truths),
        mixed,
        FusionSettings(min_score=0.4),
    )
    assert (fusion["rule"], fusion["min_score"], fusion["overlap"]) == ("published", 0.4, 0.5)
    (own,) = fusion["losses"]
    assert own["pixel"] == "score"
    expected = [losses(truth, each, 0.4) for truth, each in zip(truths, results, strict=True)]
    outcomes = [each for _, some in expected for each in some]
    assert [(row["above"], row["up_to"]) for row in own["overlaps"]] == [(-1, 0), (0, 0.1), (0.1, 0.2), (0.2, None)]
    total: Counter[str] = Counter()
    for row in own["overlaps"]:
        counts = binned(outcomes, row["above"], row["up_to"] or (0 if row["above"] < 0 else 2))
        assert {name: row[name] for name in COUNTS} == {name: counts[name] for name in COUNTS}, row
        total += counts
    assert min(total[name] for name in COUNTS) > 0, total  # all of it occurs
    pairs = [(truth, scene) for truth, (scene, _) in zip(truths, expected, strict=True)]
    assert list(own["things"].values()) == pytest.approx(quality(defined_counts(pairs)), abs=1e-12)


# --- one image: two things side by side, each ten columns wide --------------------------------------

TRUTH = Scene(np.repeat([[1, 2]], 10, axis=1).repeat(6, axis=0), {1: 1, 2: 1})


def columns(first: int, last: int) -> np.ndarray:
    mask = np.zeros(TRUTH.ids.shape, dtype=bool)
    mask[:, first:last] = True
    return mask


def outcome(own: PixelLosses) -> dict[str, int]:
    return {name: sum(row[name] for row in own["overlaps"]) for name in COUNTS}


@pytest.mark.parametrize(
    ("reach", "weaker", "expected"),
    [
        (14, 10, {"found": 2, "kept": 2}),
        (15, 10, {"found": 2, "kept": 1, "cut": 1}),  # half of it is covered, and half is no match
        (16, 10, {"found": 2, "kept": 1, "dropped": 1}),
        (10, 0, {"found": 1, "kept": 1, "gained": 1}),  # of all columns, what is left is the thing
    ],
)
def test_dropped_cut_and_gained(tmp_path: Path, reach: int, weaker: int, expected: dict[str, int]) -> None:
    """The first thing's instance goes on over the second's."""
    truth = write_truth(tmp_path / "gt.json", [TRUTH])
    results = [
        as_result(columns(weaker, 20), image_id=0, category_id=1, score=0.7),
        as_result(columns(0, reach), image_id=0, category_id=1, score=0.9),
    ]
    (own,) = measured(truth, results, FusionSettings())["losses"]
    assert outcome(own) == {name: {"true": 2, **expected}.get(name, 0) for name in COUNTS}


def test_what_scores_too_little_finds_nothing(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "gt.json", [TRUTH])
    results = [as_result(columns(0, 10), image_id=0, category_id=1, score=0.5)]
    for least, found in ((0.5, 1), (0.6, 0)):
        (own,) = measured(truth, results, FusionSettings(min_score=least))["losses"]
        assert outcome(own)["found"] == outcome(own)["kept"] == found
    (own,) = measured(truth, [], FusionSettings())["losses"]
    assert outcome(own) == {name: 2 if name == "true" else 0 for name in COUNTS}


@pytest.mark.parametrize(("rule", "kept"), [("published", 2), ("detectron2", 2), ("mmdet", 1)])
def test_the_rule_is_the_fusions(tmp_path: Path, rule: FusionRule, kept: int) -> None:
    """Boxes that overlap by more than half, masks that do not: a box NMS drops one."""
    corner = np.tri(20, dtype=bool)
    truth = write_truth(tmp_path / "gt.json", [Scene(np.where(corner, 1, 2), {1: 1, 2: 3})])
    results = [
        as_result(corner, image_id=0, category_id=1, score=0.9),
        as_result(~corner, image_id=0, category_id=3, score=0.8),
    ]
    fusion = measured(truth, results, FusionSettings(rule=rule))
    assert fusion["rule"] == rule
    expected = {"true": 2, "found": 2, "kept": kept, "dropped": 2 - kept, "cut": 0, "gained": 0}
    assert outcome(fusion["losses"][0]) == expected
    assert fusion["losses"][0]["overlaps"][-1]["true"] == 2


def test_both_pixel_rules_where_probabilities_are_known(tmp_path: Path) -> None:
    """By score the second thing is cut, by probability it keeps what the first is not sure of."""
    truth = read_panoptic(write_truth(tmp_path / "gt.json", [TRUTH]))
    table = things_table(truth)
    masks = [columns(0, 15), columns(10, 20)]
    probs = [np.where(columns(0, 10), 0.9, 0.3).astype(np.float32), np.full(TRUTH.ids.shape, 0.8, np.float32)]
    boxes = np.array([[0, 0, 15, 6], [10, 0, 20, 6]], dtype=np.float32)
    things = Things([0.9, 0.8], [1, 1], boxes, masks.__getitem__, probs.__getitem__)
    report = fusion_losses(
        truth,
        table,
        largest_overlaps(table, "box", same_class=False),
        lambda image_id: things,
        settings=FusionSettings(),
        above=(-1,),
        pixels=("score", "probability"),
    )
    by_score, by_probability = report["losses"]
    assert (by_score["pixel"], by_probability["pixel"]) == ("score", "probability")
    assert outcome(by_score) == {"true": 2, "found": 2, "kept": 1, "dropped": 0, "cut": 1, "gained": 0}
    assert outcome(by_probability) == {"true": 2, "found": 2, "kept": 2, "dropped": 0, "cut": 0, "gained": 0}
    assert by_probability["things"]["PQ"] == 1 > by_score["things"]["PQ"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"image_id": 0, "category_id": 1, "score": 0.9, "bbox": [0, 0, 2, 2]}, "has boxes only"),
        (as_result(columns(0, 3), image_id=4, category_id=1, score=0.9), "image id 4 is not in"),
        (as_result(columns(0, 3), image_id=0, category_id=92, score=0.9), "category id 92 is not in"),
        (as_result(np.ones((4, 4)), image_id=0, category_id=1, score=0.9), "RLE size is [4, 4]"),
    ],
)
def test_instances_that_do_not_fit(tmp_path: Path, result: object, said: str) -> None:
    truth = write_truth(tmp_path / "gt.json", [TRUTH])
    with pytest.raises(DataError) as raised:
        measured(truth, [result], FusionSettings())
    assert said in str(raised.value)
    assert "instances.json" in str(raised.value)
