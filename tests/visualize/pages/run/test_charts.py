"""Numbers of a run as curves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsctool.engine.meters import over_processes
from dsctool.runs.history import History
from dsctool.visualize.pages.run.charts import HEIGHT, MOST, WIDTH, Series, chart, run_charts, ticks


@given(st.floats(1e-9, 1e9))
def test_ticks_are_few_round_and_inside(top: float) -> None:
    values = ticks(top)
    assert values[0] == 0
    assert 3 <= len(values) <= 6
    assert values[-1] <= top * (1 + 1e-6)
    step = values[1]
    assert min(abs(step / 10 ** math.floor(math.log10(step) + 1e-9) - factor) for factor in (1, 2, 5)) < 1e-6


def corners(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in path.split()]  # type: ignore[misc]


def test_a_curve_is_where_its_numbers_are() -> None:
    (curve,) = chart("loss", [Series("a", [(0, 0.0), (5, 2.0), (10, 1.0)])]).curves
    top = 2 * 1.08
    wanted = [(0, HEIGHT), (WIDTH / 2, HEIGHT * (1 - 2 / top)), (WIDTH, HEIGHT * (1 - 1 / top))]
    assert corners(curve.path) == [pytest.approx(each, abs=0.06) for each in wanted]
    assert curve.last == "1.000"


def test_many_points_become_few_and_what_stands_out_stays_inside() -> None:
    points = [(step, 1.0) for step in range(10 * MOST)]
    points[3] = (3, 1000.0)
    points[5] = (5, math.nan)
    (curve,) = chart("loss", [Series("a", points)]).curves
    places = corners(curve.path)
    assert MOST - 1 <= len(places) <= MOST
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert places[-1][1] == pytest.approx(HEIGHT * 0.08 / 1.08, abs=0.06), "the axis ends above the usual ones"


def test_the_charts_of_a_run() -> None:
    train = [
        {
            "step": step,
            "lr": 0.1,
            "loss": 3.0,
            "loss_rpn_cls": 1.0,
            "s0.loss_cls": 1.0,
            "s0.loss_mask": 1.0,
            "grad_norm": 2,
        }
        for step in (1, 2)
    ]
    evaluations = [{"step": 2, "bbox_AP": 0.25, "segm_AP": 0.5, "val_loss": 2.0, "val_s0.loss_cls": 0.5}]
    charts = {each.title: each for each in run_charts(History(train, evaluations))}
    assert list(charts) == [
        "AP (0 to 100)", "Loss, the sum of all", "Learning rate", "Region proposals", "Cascade stage s0",
        "Gradient norm, before clipping",
    ]  # fmt: skip
    assert [(each.label, each.last) for each in charts["AP (0 to 100)"].curves] == [
        ("mask AP", "50.0"),
        ("box AP", "25.0"),
    ]
    stage = [(each.label, each.color, each.dashed) for each in charts["Cascade stage s0"].curves]
    assert stage == [("s0.loss_cls", 1, False), ("validation", 1, True), ("s0.loss_mask", 2, False)]
    assert run_charts(History()) == []


def test_what_processes_differ_by_is_drawn_beside_their_mean() -> None:
    """As the trainer names it: no further loss."""
    told = [({"loss_mask": loss}, {"step_time": 1.0, "data_time": 0.1, "images_per_s": 2.0}) for loss in (1.0, 3.0)]
    losses, others = over_processes(told)
    line = {"step": 1, "epoch": 0.1, "loss": sum(losses.values()), **losses, **others}
    charts = {each.title: each for each in run_charts(History([line], []))}
    curves = [(curve.label, curve.dashed) for curve in charts["Loss, the sum of all"].curves]
    assert curves == [("training", False), ("lowest process", True), ("highest process", True)]
    assert History([line], []).losses() == ["loss_mask"]
