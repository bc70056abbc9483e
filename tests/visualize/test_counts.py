"""Plots of counts and thresholds: what is where in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.counts import study_counts
from dsctool.evaluation.operating_point import THRESHOLDS, study_operating_point
from dsctool.visualize import counts
from tests.evaluation.crowded import crowded_truth, noisy_results


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """What would be written."""
    kept: dict[str, Figure] = {}

    def keep(folder: Path, figures: Mapping[str, Figure]) -> None:
        kept.update(figures)

    monkeypatch.setattr(counts, "save_figures", keep)
    return kept


def test_dots_are_where_the_counts_are(figures: dict[str, Figure]) -> None:
    truth = crowded_truth(0)
    study = study_counts(compare(truth, noisy_results(truth, 0)), [0.5] * 4)
    counts.save_counts(Path("counts.png"), study)
    together, by_class = figures["counts.png"].axes
    (dots,) = together.collections
    places = np.asarray(dots.get_offsets())
    pairs = np.unique(np.stack([study.true.sum(axis=1), study.found.sum(axis=1)], axis=1), axis=0)
    assert np.array_equal(places, pairs)
    assert len(by_class.collections) == 4
    legend = by_class.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {"date", "fig", "nut", "pea"}
    for plot in (together, by_class):
        assert plot.get_xlim() == plot.get_ylim()
        assert all(np.asarray(dots.get_offsets()).max() < plot.get_xlim()[1] for dots in plot.collections)


def test_curves_over_the_threshold(figures: dict[str, Figure]) -> None:
    truth = crowded_truth(0)
    study = study_operating_point(compare(truth, noisy_results(truth, 0)))
    counts.save_operating_point(Path("point.png"), study)
    whole, classes, errors = figures["point.png"].axes
    lines = {str(line.get_label()): line for line in whole.lines}
    assert np.array_equal(lines["F1"].get_xdata(), THRESHOLDS)
    assert np.array_equal(lines["F1"].get_ydata(), study.overall.curve.f1)
    assert {str(line.get_label()) for line in classes.lines if len(line.get_xdata()) > 1} == {"date", "fig", "nut"}
    assert len(errors.lines) == 4


def test_nothing_to_draw(figures: dict[str, Figure]) -> None:
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "pea"}], "annotations": []}
    counts.save_counts(Path("counts.png"), study_counts(compare(truth, []), [0.5]))
    counts.save_operating_point(Path("point.png"), study_operating_point(compare(truth, [])))
    assert set(figures) == {"counts.png", "point.png"}
