"""The numbers of a run as line charts: what ``line_chart`` of the templates draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dsctool.runs.history import History, Line
from dsctool.runs.losses import stage_of
from dsctool.terms import KIND_NAMES, KINDS

WIDTH, HEIGHT = 400.0, 190.0
"""Of the area that curves are drawn in, in the units of the chart."""
MOST = 240
"""Points of a curve; of more, neighbours are drawn as their mean."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """label: in the legend. path: points ``x,y`` in the chart. last: its last value, as text. dashed: how it is drawn.

    color: number of a colour, from 1.
    """

    label: str
    path: str
    last: str
    color: int
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """x_ticks, y_ticks: where in the chart lines of the grid are, and what stands at them."""

    title: str
    curves: Sequence[Curve]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Series:
    """A curve to be. points: ``(step, value)``."""

    label: str
    points: Points
    dashed: bool = False


def run_charts(history: History) -> list[Chart]:
    """The charts of a run, those that matter most first; one without numbers is left out."""
    train, evaluations, draw = history.train, history.evaluations, partial(chart, steps=history.step)
    whole = [
        draw("AP (0 to 100)", _precisions(evaluations), digits=1),
        draw(
            "Loss, the sum of all",
            [_series(train, "loss", "training"), *_range(train), _validation(evaluations, "loss")],
        ),
        draw("Learning rate", [_series(train, "lr", "learning rate")], text=_short),
    ]
    names = history.losses()
    parts = [
        draw(title, [each for name in group for each in _both(train, evaluations, name)])
        for title, group in _groups(names)
    ]
    rest = [
        draw("Gradient norm, before clipping", [_series(train, "grad_norm", "norm")], digits=2),
        draw("Images per second", [_series(train, "images_per_s", "images")], digits=2),
        draw("Waiting for data, % of the time", [_series(train, "data_share", "waiting", factor=100)], digits=0),
    ]
    return [each for each in (*whole, *parts, *rest) if each.curves]


def _range(train: Sequence[Line]) -> list[Series]:
    """The lowest and the highest loss among several processes."""
    named = (("total_min", "lowest process"), ("total_max", "highest process"))
    return [replace(_series(train, key, label), dashed=True) for key, label in named]


def chart(
    title: str,
    series: Sequence[Series],
    *,
    digits: int = 3,
    text: Callable[[float], str] | None = None,
    steps: int = 0,
) -> Chart:
    """A chart of the series that have points, on axes from 0.

    digits: of the values in the legend, unless ``text``. steps: that the axis covers at least.
    """
    drawn = [each for each in series if each.points]
    right = max([steps, *(x for each in drawn for x, _ in each.points)]) or 1.0
    top = _top([y for each in drawn for _, y in each.points])
    text = text or (lambda value: f"{value:.{digits}f}")
    curves = [
        Curve(each.label, _path(each.points, right, top), text(each.points[-1][1]), _color(drawn, number), each.dashed)
        for number, each in enumerate(drawn)
    ]
    x_ticks = [(WIDTH * value / right, _short(value)) for value in ticks(right)]
    y_ticks = [(HEIGHT - HEIGHT * value / top, _short(value)) for value in ticks(top)]
    return Chart(title, curves, x_ticks, y_ticks)


def ticks(top: float) -> list[float]:
    """About five round numbers from 0 to ``top``."""
    step = 10.0 ** math.floor(math.log10(top / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
    return [number * step for number in range(math.floor(top / step + 1e-9) + 1)]


def _color(drawn: Sequence[Series], number: int) -> int:
    """A dashed curve has the colour of the one before it, which it belongs to."""
    return sum(not each.dashed for each in drawn[: number + 1]) or 1


def _top(values: Sequence[float]) -> float:
    """The upper end of the axis: above all values but the one in fifty that stands out."""
    usual = sorted(value for value in values if math.isfinite(value))
    if not usual:
        return 1.0
    high = usual[math.ceil(0.98 * len(usual)) - 1]
    top = usual[-1] if usual[-1] < 1.5 * high else high
    return 1.08 * top if top > 0 else 1.0


def _path(points: Points, right: float, top: float) -> str:
    size = math.ceil(len(points) / MOST)
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    means = [[sum(values) / len(group) for values in zip(*group, strict=True)] for group in groups]
    return " ".join(
        f"{WIDTH * x / right:.1f},{HEIGHT - HEIGHT * min(max(y / top, 0.0), 1.0):.1f}"
        for x, y in means
        if math.isfinite(y)
    )


def _groups(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Losses that belong together, with a title."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stage = stage_of(name)
        if stage is not None:
            title = f"Cascade stage s{stage}"
        else:
            title = "Region proposals" if "rpn" in name else "Other losses"
        groups.setdefault(title, []).append(name)
    return list(groups.items())


def _both(train: Sequence[Line], evaluations: Sequence[Line], name: str) -> list[Series]:
    return [_series(train, name, name), _validation(evaluations, name)]


def _validation(evaluations: Sequence[Line], name: str) -> Series:
    series = _series(evaluations, f"val_{name}", "validation")
    return Series(series.label, series.points, dashed=True)


def _precisions(evaluations: Sequence[Line]) -> list[Series]:
    """Masks before boxes; AP as a line and AP50 dashed."""
    series = []
    for kind in reversed(KINDS):
        for number in ("AP", "AP50"):
            points = _series(evaluations, f"{kind}_{number}", f"{KIND_NAMES[kind]} {number}", factor=100)
            series.append(Series(points.label, points.points, dashed=number == "AP50"))
    return series


def _series(lines: Sequence[Line], name: str, label: str, *, factor: float = 1.0) -> Series:
    return Series(label, [(line["step"], factor * line[name]) for line in lines if name in line])


def _short(value: float) -> str:
    """``0.0005``, ``2.5e-05``, ``1500``, ``90k``."""
    if value >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if value < 1000 else f"{value:g}"
