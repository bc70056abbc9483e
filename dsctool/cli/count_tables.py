"""Counts and operating points on the terminal, as JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.tables import print_table
from dsctool.terms import KIND_NAMES

if TYPE_CHECKING:
    from dsctool.evaluation.counts import CountErrors, CountStudy, DensityCounts
    from dsctool.evaluation.operating_point import ClassPoint, Curve, OperatingStudy, Quality
    from dsctool.evaluation.tables import Floats

COUNT_FILES = ("counts.csv", "counts.png")
POINT_FILES = ("operating_point.csv", "operating_point.png")
_STEP = 5
"""Of a curve's hundredths, every fifth is in the table."""


# --- counts -----------------------------------------------------------------------------------------


def show_counts(study: CountStudy, folder: Path | None) -> None:
    """Errors by class and by density; ``counts.csv`` and ``counts.png`` in ``folder``."""
    if study.total is None:
        typer.echo("counts: the ground truth has no images")
        return
    header = ["counts per image", "threshold", "images", "true", "found", "MAE", "RMSE", "bias"]
    rows = [[each.name, f"{each.threshold:.4g}", *_errors(each.errors)] for each in study.classes]
    rows.append(["all", "", *_errors(study.total)])
    rows += [[density_name(each), "", *_errors(each.errors)] for each in study.densities]
    print_table(header, rows)
    if folder is not None:
        from dsctool.visualize.counts import save_counts

        names = [each.name for each in study.classes]
        table = (
            [image, identity.id, name, int(study.true[row, column]), int(study.found[row, column])]
            for row, image in enumerate(study.images)
            for column, (identity, name) in enumerate(zip(study.classes, names, strict=True))
        )
        _write_csv(folder / "counts.csv", ["image_id", "category_id", "class", "true", "found"], table)
        save_counts(folder / "counts.png", study)
        typer.echo(f"\n{folder / 'counts.png'}")


def counts_json(study: CountStudy) -> dict[str, object]:
    """All numbers; those of every image are in ``counts.csv``."""
    return {
        "kind": study.kind,
        "total": None if study.total is None else asdict(study.total),
        "per_class": [
            {"id": each.id, "name": each.name, "threshold": each.threshold, **asdict(each.errors)}
            for each in study.classes
        ],
        "densities": [{"low": each.low, "high": each.high, **asdict(each.errors)} for each in study.densities],
    }


def density_name(bin_: DensityCounts) -> str:
    """Such as ``5 to 9 instances``."""
    if bin_.high is None:
        return f"from {bin_.low} instances"
    if bin_.low == bin_.high:
        return f"{bin_.low} instances"
    return f"{bin_.low} to {bin_.high} instances"


def _errors(errors: CountErrors) -> list[str]:
    numbers = [f"{errors.mae:.2f}", f"{errors.rmse:.2f}", f"{errors.bias:+.2f}"]
    return [str(errors.images), str(errors.true), str(errors.found), *numbers]


# --- operating points -------------------------------------------------------------------------------


def show_point(study: OperatingStudy, folder: Path | None) -> None:
    """All classes over the threshold, and the best of each; CSV and a plot in ``folder``."""
    from dsctool.evaluation.operating_point import IOU, THRESHOLDS

    said = f"{KIND_NAMES[study.kind]} IoU {IOU:g}"
    curve = study.overall.curve
    columns = [curve.precision, curve.recall, curve.f1, curve.count_error]
    rows = [
        [f"{THRESHOLDS[place]:.2f}", *(_number(column[place]) for column in columns)]
        for place in range(0, len(THRESHOLDS), _STEP)
    ]
    print_table(["threshold", "precision", "recall", "F1", "count error"], rows)
    typer.echo(f"all classes as one, at {said}; count error: mean absolute error of counts per image")
    typer.echo()
    header = ["best threshold", "", "instances", "found", "precision", "recall", "F1", "count error", "bias"]
    best = [[each.name, *_point(each)] for each in (*study.classes, study.overall)]
    if study.together is not None:
        best.append(["each its own", "", str(study.overall.instances), *_quality(study.together)])
    print_table(header, best)
    typer.echo(f"best by {'F1' if study.best == 'f1' else 'the error of counts'}")
    if study.thresholds is None:
        typer.echo("there is no best threshold: no result is right, or there is nothing to find")
    elif not all(each.own for each in study.classes):
        typer.echo("*: nothing of the class is found, or there is nothing of it: the threshold is that of all as one")
    if folder is not None:
        from dsctool.visualize.counts import save_operating_point

        header = ["category_id", "class", "threshold", "precision", "recall", "f1", "count_error"]
        _write_csv(folder / "operating_point.csv", header, _curve_rows([study.overall, *study.classes]))
        save_operating_point(folder / "operating_point.png", study)
        typer.echo(f"\n{folder / 'operating_point.png'}")


def point_json(study: OperatingStudy) -> dict[str, object]:
    """The chosen thresholds and what they give, and the curves behind them."""
    from dsctool.evaluation.operating_point import IOU, THRESHOLDS

    return {
        "kind": study.kind,
        "iou": IOU,
        "best_by": study.best,
        "images": study.images,
        "thresholds": THRESHOLDS.tolist(),
        "all": _class_json(study.overall),
        "each_its_own": None if study.together is None else asdict(study.together),
        "per_class": [{"id": each.id, "name": each.name, **_class_json(each)} for each in study.classes],
    }


def _class_json(point: ClassPoint) -> dict[str, object]:
    return {
        "instances": point.instances,
        "own": point.own,
        "at": None if point.at is None else asdict(point.at),
        "curve": _plain(point.curve),
    }


def _plain(curve: Curve) -> dict[str, list[float | None]]:
    return {name: [None if math.isnan(each) else each for each in values.tolist()] for name, values in _named(curve)}


def _named(curve: Curve) -> list[tuple[str, Floats]]:
    return [
        ("precision", curve.precision), ("recall", curve.recall), ("f1", curve.f1), ("count_error", curve.count_error)
    ]  # fmt: skip


def _curve_rows(points: Iterable[ClassPoint]) -> Iterable[list[object]]:
    from dsctool.evaluation.operating_point import THRESHOLDS

    for point in points:
        columns = [values for _, values in _named(point.curve)]
        for place, threshold in enumerate(THRESHOLDS.tolist()):
            values = [None if math.isnan(column[place]) else float(column[place]) for column in columns]
            yield [point.id, point.name, threshold, *values]


def _point(point: ClassPoint) -> list[str]:
    if point.at is None or point.at.threshold is None:
        return ["-", str(point.instances), *["-"] * 6]
    return [f"{point.at.threshold:.4g}{'' if point.own else '*'}", str(point.instances), *_quality(point.at)]


def _quality(quality: Quality) -> list[str]:
    shares = [_number(each) for each in (quality.precision, quality.recall, quality.f1)]
    return [str(quality.found), *shares, f"{quality.count_error:.2f}", f"{quality.bias:+.2f}"]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from dsctool.files import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
