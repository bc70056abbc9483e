"""Precision over time: where each model lies between fast and good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsctool.terms import KIND_NAMES, KINDS, Kind
from dsctool.visualize.pages.figures import quiet, save_figures

_COLORS: dict[Kind, str] = {"bbox": "#0d58ad", "segm": "#b84e00"}


@dataclass(frozen=True)
class Point:
    """A model: seconds a picture, and AP (0 to 1) of boxes and of masks where it has any."""

    name: str
    seconds: float
    precision: Mapping[Kind, float]


def save_tradeoff(path: Path, points: Sequence[Point]) -> None:
    """Write a PNG: a dot for every model and kind, the best at every time joined by a line."""
    kinds = [kind for kind in KINDS if any(kind in point.precision for point in points)]
    figure = Figure(figsize=(1.6 + 4.4 * len(kinds), 4.2), layout="constrained")
    for kind, plot in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
        _draw(plot, kind, [point for point in points if kind in point.precision])
    save_figures(path.parent, {path.name: figure})


def _draw(plot: Axes, kind: Kind, points: Sequence[Point]) -> None:
    color = _COLORS[kind]
    places = {point.name: (point.seconds, 100 * point.precision[kind]) for point in points}
    best = _frontier(list(places.values()))
    plot.plot(*zip(*best, strict=True), color=color, linewidth=1.5, alpha=0.35, drawstyle="steps-post", zorder=1)
    seconds, aps = zip(*places.values(), strict=True)
    plot.scatter(seconds, aps, s=42, color=color, edgecolor="white", zorder=2)
    for name, (second, ap) in places.items():
        right = second > 0.6 * max(point.seconds for point in points)
        plot.annotate(
            name, (second, ap), xytext=(-5 if right else 5, 6), textcoords="offset points", fontsize=9,
            ha="right" if right else "left", color="#101418",
        )  # fmt: skip
    plot.set_xlim(0, 1.1 * max(seconds))
    plot.margins(y=0.2)
    plot.set_xlabel("seconds a picture")
    plot.set_ylabel(f"{KIND_NAMES[kind]} AP")
    quiet(plot, grid="both")


def _frontier(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no faster one beats, by time."""
    best: list[tuple[float, float]] = []
    for place in sorted(places):
        if not best or place[1] > best[-1][1]:
            best.append(place)
    return best
