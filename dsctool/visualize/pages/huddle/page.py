"""The huddle report as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dsctool.evaluation.huddle.rows import difference, has_baseline, instance_rows, kinds, precision, sides
from dsctool.evaluation.huddle.schema import Cell, HuddleReport
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.evaluation.overlaps import Overlap
from dsctool.evaluation.rows import points
from dsctool.evaluation.tables import Floats
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.html import render
from dsctool.visualize.pages.huddle.gallery import GalleryEntry
from dsctool.visualize.pages.huddle.maps import difference_maps, image_map, precision_maps

OVERLAP_NAMES: dict[Overlap, str] = {
    "box": "IoU of boxes",
    "mask": "IoU of masks",
    "iomin": "intersection of masks over the smaller one",
}
_ENOUGH = 20  # images, for a cell to be named at the top


def report_page(study: HuddleStudy, entries: Sequence[GalleryEntry], *, score_threshold: float) -> str:
    """The whole document. entries: of the gallery, whose results score at least ``score_threshold``."""
    report = study.report
    named = [("Ground truth", study.truth.name), ("Candidate", study.candidate.name)]
    if study.baseline is not None:
        named.append(("Baseline", study.baseline.name))
    overlaps = study.overlaps[~np.isnan(study.overlaps)]
    overlapping = int(np.count_nonzero(overlaps))
    values = {
        "study": study,
        "report": report,
        "named": named,
        "overlap": OVERLAP_NAMES[report["overlap"]],
        "summary": _summary(report),
        "differences": difference_maps(report) if has_baseline(report) else [],
        "precisions": precision_maps(report, sides(report)),
        "instances": instance_rows(report),
        "overlapping": overlapping,
        "total": len(overlaps),
        "share": overlapping / max(len(overlaps), 1),
        "images": image_map(report),
        "bars": _bars(overlaps),
        "entries": entries,
        "score_threshold": score_threshold,
    }
    return render("huddle.html", values)


def _summary(report: HuddleReport) -> list[tuple[str, str]]:
    """The numbers that sum it up, each with what it is."""
    cells = [cell for cell in report["cells"] if cell["images"]]
    if not cells:
        return [("0", "images with instances")]
    everything = max(cells, key=lambda cell: cell["images"])
    crowded = [cell for cell in cells if cell["images"] >= min(_ENOUGH, everything["images"])][-1]
    text = [(f"{everything['images']}", f"images with {everything['instances']} instances")]
    for cell, where in ((everything, "all of them"), (crowded, _where(crowded))):
        if has_baseline(report):
            values = [points(difference(cell, kind), sign=True) for kind in kinds(report)]
            meaning = "gained on"
        else:
            values = [points(precision(cell, kind, "candidate")) for kind in kinds(report)]
            meaning = "on"
        names = " / ".join(KIND_NAMES[kind] for kind in kinds(report))
        text.append((" / ".join(values), f"{names} AP {meaning} {where}"))
    return text


def _where(cell: Cell) -> str:
    return f"the {cell['images']} images of T_O {cell['t_o']:g}, T_P {cell['t_p']:g}"


def _bars(overlaps: Floats) -> list[tuple[str, int]]:
    """Instances by their largest overlap."""
    counts, edges = np.histogram(overlaps[overlaps > 0], bins=10, range=(0.0, 1.0))
    names = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(edges)]
    return [("none", int(np.count_nonzero(overlaps == 0))), *zip(names, counts.tolist(), strict=True)]
