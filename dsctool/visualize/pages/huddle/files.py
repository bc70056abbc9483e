"""What a huddle report leaves in its folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from dsctool.evaluation.huddle.schema import NUMBERS, HuddleReport, Measured
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.files import write_text
from dsctool.terms import KIND_NAMES, KINDS
from dsctool.visualize.pages.figures import save_figures
from dsctool.visualize.pages.huddle.figures import heat_maps
from dsctool.visualize.pages.huddle.gallery import gallery
from dsctool.visualize.pages.huddle.page import report_page


def write_report(
    output: Path,
    study: HuddleStudy,
    *,
    images: Path | None = None,
    gallery_size: int = 12,
    score_threshold: float = 0.3,
) -> None:
    """Write ``huddle.json``, ``huddle.csv``, the heat maps and ``report.html`` to a folder that exists.

    Each is written whole or not at all. images, score_threshold: as in :func:`.gallery.gallery`.
    """
    write_text(output / "huddle.json", json.dumps(study.report, indent=2) + "\n")
    write_text(output / "huddle.csv", as_csv(study.report))
    save_figures(output, heat_maps(study.report))
    entries = gallery(study, images=images, count=gallery_size, score_threshold=score_threshold)
    write_text(output / "report.html", report_page(study, entries, score_threshold=score_threshold))


def as_csv(report: HuddleReport) -> str:
    """The report as a table, a line per cell, then a line per T_O of the view of single instances.

    Columns that a line has nothing for are empty: ``t_p`` and ``images`` in the view of single instances.
    """
    numbers = [f"{KIND_NAMES[kind]}_{name}" for kind in KINDS for name in NUMBERS]
    bounds = [f"{KIND_NAMES[kind]}_difference{end}" for kind in KINDS for end in ("", "_low", "_high")]
    header = ["view", "t_o", "t_p", "images", "instances", *numbers, *(f"baseline_{name}" for name in numbers), *bounds]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for cell in report["cells"]:
        writer.writerow(["cell", cell["t_o"], cell["t_p"], cell["images"], cell["instances"], *_values(cell)])
    for view in report["instance_level"]:
        writer.writerow(["instances", view["t_o"], None, None, view["instances"], *_values(view)])
    return buffer.getvalue()


def _values(measured: Measured) -> list[float | None]:
    values: list[float | None] = []
    for stats in (measured, measured["baseline"]):
        for kind in KINDS:
            numbers = None if stats is None else stats[kind]
            values += [None if numbers is None else numbers[name] for name in NUMBERS]
    for kind in KINDS:
        difference = None if measured["difference"] is None else measured["difference"][kind]
        values += [None] * 3 if difference is None else [difference["AP"], difference["low"], difference["high"]]
    return values
