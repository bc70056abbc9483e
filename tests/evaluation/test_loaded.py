"""Ground truth and results that were loaded once serve every analysis, in any order, and stay as they were."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from itertools import permutations
from typing import Any

import pytest

from dsctool.evaluation.coco import evaluate_all
from dsctool.evaluation.error_analysis.study import study_errors
from dsctool.evaluation.huddle.study import study_huddles
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.sources import GroundTruth, load_ground_truth, load_predictions
from tests.evaluation.crowded import crowded_truth, noisy_results

ANALYSES: dict[str, Callable[[Any, Any], object]] = {
    "coco": evaluate_all,
    "huddle": lambda truth, results: study_huddles(truth, results, results).report,
    "errors": lambda truth, results: study_errors(truth, results, results).report,
}


@pytest.mark.parametrize("order", list(permutations(ANALYSES)), ids=" ".join)
def test_each_analysis_gives_what_it_gives_for_the_content(order: tuple[str, ...]) -> None:
    truth = crowded_truth(seed=51, images=4)
    results = noisy_results(truth, seed=52)
    loaded = load_ground_truth(truth)
    found = load_predictions(results, loaded)
    for name in order:
        assert ANALYSES[name](loaded, found) == ANALYSES[name](truth, results), name


@pytest.mark.parametrize("name", ANALYSES)
def test_no_analysis_changes_what_was_loaded(name: str) -> None:
    truth = crowded_truth(seed=53, images=4)
    loaded = load_ground_truth(truth)
    found = load_predictions(noisy_results(truth, seed=54), loaded)
    before = _state(loaded, found)
    ANALYSES[name](loaded, found)
    assert _state(loaded, found) == before


def _state(truth: GroundTruth, found: Predictions) -> bytes:
    """All there is, without what is computed once on the first need."""
    fixed = {field.name: getattr(truth, field.name) for field in fields(truth)}
    return pickle.dumps((fixed, found))
