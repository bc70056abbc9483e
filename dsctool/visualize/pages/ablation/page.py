"""An ablation as a page that is one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from PIL import Image

from dsctool.evaluation.ablation import AblationReport, RowReport
from dsctool.evaluation.huddle.study import T_O, T_P
from dsctool.evaluation.resampling import NUMBERS
from dsctool.evaluation.rows import Table, points
from dsctool.evaluation.seeds import Estimate
from dsctool.runs.history import History
from dsctool.terms import KIND_NAMES, Kind
from dsctool.visualize.pages.ablation.tables import change_text, crowded_text, growth_table, means_table
from dsctool.visualize.pages.html import HeatCell, HeatMap, render, scaled
from dsctool.visualize.pages.run.charts import Chart, Series, chart
from dsctool.visualize.tradeoff import Point, save_tradeoff


def ablation_page(
    report: AblationReport,
    *,
    command: str,
    histories: Mapping[str, Sequence[History]],
    folder: Path,
) -> str:
    """The whole document. command: that makes it. histories: of the trainings of every row.

    folder: gets tradeoff.png, AP over time, where times were measured.
    """
    kinds = report.kinds
    marks = [_point(row, kinds) for row in report.rows if row.time is not None and row.estimates is not None]
    tradeoff = folder / "tradeoff.png"
    if marks:
        save_tradeoff(tradeoff, marks)
    values = {
        "report": report,
        "reference": next(row.title for row in report.rows if row.name == report.reference),
        "summary": _summary(report),
        "sentences": [sentence(row, changes, report.kinds) for row, changes in report.compared],
        "means": [means_table(report, kind) for kind in kinds],
        "differences": scaled([_changes(report, kind) for kind in kinds]) if report.compared else [],
        "cells": scaled([_cells(row, kind, report) for row, _ in report.compared for kind in kinds]),
        "growth": growth_table(report) if report.compared else None,
        "crowded": crowded_text(report),
        "charts": [_losses(report, histories)] if histories else [],
        "tradeoff": Image.open(tradeoff).convert("RGB") if marks else None,
        "rates": _rates(report),
        "pairing": pairing_table(report),
        "failed": [(name, reason) for row in report.rows for name, reason in row.failed.items()],
        "command": command,
    }
    return render("ablation.html", values)


def _point(row: RowReport, kinds: Sequence[Kind]) -> Point:
    assert row.estimates is not None
    assert row.time is not None
    return Point(row.title, row.time.median, {kind: row.estimates.means[kind]["AP"].value for kind in kinds})


def sentence(row: RowReport, changes: Mapping[Kind, Mapping[str, Estimate]], kinds: Sequence[Kind]) -> str:
    """What the differences in AP to the reference say, in words."""
    said = [f"{KIND_NAMES[kind]} AP {_verdict(changes[kind]['AP'])}" for kind in kinds]
    return f"{row.title}: {'; '.join(said)}"


def _verdict(change: Estimate) -> str:
    known = not math.isnan(change.low) and change.sign
    word = ("better" if change.sign > 0 else "worse") if known else "cannot be told"
    return f"{change_text(change)}, {word}"


def _summary(report: AblationReport) -> list[tuple[str, str]]:
    trained = [row for row in report.rows if row.seconds is not None and row.estimates is not None]
    hours = sum((row.seconds or 0) * len(row.estimates.seeds) for row in trained if row.estimates is not None) / 3600
    return [
        (str(len(report.rows)), f"rows with seeds {', '.join(map(str, report.seeds))}"),
        (f"{hours:.1f} h", "of training, one run after the other"),
        (str(report.images), "images measured"),
    ]


def _changes(report: AblationReport, kind: Kind) -> HeatMap:
    """Coloured where the interval is on one side of 0."""
    rows = [(row.title, [_heat(changes[kind][number]) for number in NUMBERS]) for row, changes in report.compared]
    return HeatMap(f"{KIND_NAMES[kind].capitalize()} AP", "row", NUMBERS, rows)


def _cells(row: RowReport, kind: Kind, report: AblationReport) -> HeatMap:
    assert row.estimates is not None
    assert row.estimates.cells is not None
    body: list[tuple[str, Sequence[HeatCell | None]]] = []
    for t_o, cells, images in zip(T_O, row.estimates.cells.estimates[kind], report.cell_images, strict=True):
        shown = [
            None if cell is None else _heat(cell, title=f"{count} images")
            for cell, count in zip(cells, images, strict=True)
        ]
        body.append((f"{t_o:g}", shown))
    return HeatMap(f"{row.title}: {KIND_NAMES[kind]} AP", "T_O ╲ T_P", [f"{each:g}" for each in T_P], body)


def _heat(change: Estimate, title: str = "") -> HeatCell | None:
    if math.isnan(change.value):
        return None
    bounds = "" if math.isnan(change.low) else "…".join(points(each, sign=True) for each in (change.low, change.high))
    share = abs(change.value) if change.sign else 0.0
    return HeatCell(points(change.value, sign=True), share, "less" if change.value < 0 else "more", bounds, title)


def _losses(report: AblationReport, histories: Mapping[str, Sequence[History]]) -> Chart:
    series = []
    for row in report.rows:
        runs = [history.train for history in histories.get(row.name, ()) if history.train]
        if runs:
            steps = zip(*runs, strict=False)
            curve = [(float(lines[0]["step"]), mean(float(line["loss"]) for line in lines)) for lines in steps]
            series.append(Series(row.title, curve))
    return chart("Training loss, the sum of all, mean over seeds", series)


def _rates(report: AblationReport) -> Table | None:
    factors = sorted({factor for row in report.rows for factor in row.tried})
    if not factors:
        return None
    body = [
        [row.title, *(points(row.tried.get(factor)) for factor in factors), f"{row.rate:.3g}"]
        for row in report.rows
        if row.tried
    ]
    return ["row", *(f"x {factor:g}" for factor in factors), "rate"], body


def pairing_table(report: AblationReport) -> Table | None:
    """Standard errors of the differences, of pairs and otherwise; and how many seeds the pairs spare."""
    body = []
    kind = report.kinds[-1] if report.kinds else "bbox"
    for row, changes in report.compared:
        assert row.estimates is not None
        assert row.estimates.unpaired is not None
        paired, unpaired = changes[kind]["AP"], row.estimates.unpaired[kind]["AP"]
        if math.isnan(paired.by_seeds) or not paired.by_seeds:
            continue
        seeds = len(row.estimates.seeds) * (unpaired.by_seeds / paired.by_seeds) ** 2
        pairs = [points(each) for one in (paired, unpaired) for each in (one.by_seeds, one.by_images)]
        body.append([row.title, *pairs, f"{seeds:.1f}"])
    if not body:
        return None
    return [
        "row",
        "pairs: by seeds",
        "by images",
        "unpaired: by seeds",
        "by images",
        "seeds for the same, unpaired",
    ], body
