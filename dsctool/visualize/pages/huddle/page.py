"""The huddle report as sections of a page: each is a piece of HTML that any page with the same style may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from dsctool.evaluation.huddle.rows import (
    Grid,
    Side,
    axes,
    cell_rows,
    difference,
    difference_grid,
    has_baseline,
    image_grid,
    instance_rows,
    interval,
    kinds,
    points,
    precision,
    precision_grid,
)
from dsctool.evaluation.huddle.schema import Cell, HuddleReport
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.evaluation.huddle.subsets import Overlap
from dsctool.structures import KIND_NAMES, Kind
from dsctool.visualize.pages.html import (
    HeatCell,
    bar_chart,
    cards,
    facts,
    heat_table,
    page,
    picture,
    plain_table,
    subscripted,
)
from dsctool.visualize.pages.huddle.gallery import GalleryEntry, GalleryPanel

OVERLAP_NAMES: dict[Overlap, str] = {
    "box": "IoU of boxes",
    "mask": "IoU of masks",
    "iomin": "intersection of masks over the smaller one",
}
_CORNER = "T_O ╲ T_P"
_ENOUGH = 20  # images, for a cell to be named at the top


def report_page(study: HuddleStudy, entries: Sequence[GalleryEntry], *, score_threshold: float) -> str:
    """The whole document. entries: of the gallery, whose results score at least ``score_threshold``."""
    compared = study.baseline is not None
    sections = [header(study), *tables(study.report), instance_table(study.report), data_section(study)]
    return page(
        "Huddle report", [*sections, gallery_section(entries, compared=compared, score_threshold=score_threshold)]
    )


def header(study: HuddleStudy) -> str:
    """Title, what was compared, and the numbers that sum it up."""
    report = study.report
    neighbours = "of the same category" if report["same_class"] else "of any category"
    sources = [("Ground truth", study.truth.name), ("Candidate", study.candidate.name)]
    if study.baseline is not None:
        sources.append(("Baseline", study.baseline.name))
    named = " · ".join(f"{role} <code>{escape(Path(name).name)}</code>" for role, name in sources)
    notes = "".join(f'<p class="faint">{escape(note)}.</p>' for note in study.notes)
    definition = (
        f"An instance is huddled at T_O when its largest overlap ({OVERLAP_NAMES[report['overlap']]}) with another one "
        f"{neighbours} in the image is greater than T_O. A cell has the images in which the share of huddled instances "
        "is greater than T_P. AP as COCO counts it, in points of 100."
    )
    return (
        "<header><h1>Huddle report</h1>"
        f"<p>{named}</p>"
        f'<p class="faint">{subscripted(definition)}</p>{notes}'
        f"{facts(_summary(report))}</header>"
    )


def _summary(report: HuddleReport) -> list[tuple[str, str]]:
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


# --- tables -----------------------------------------------------------------------------------------


def tables(report: HuddleReport) -> list[str]:
    """Heat maps with their numbers: differences where there is a baseline, and AP."""
    sections = []
    shown = kinds(report)
    if has_baseline(report):
        sections.append(_section("Candidate minus baseline", _interval_note(report)))
        sections.append(cards([_differences(report, kind) for kind in shown]))
    sections.append(_section("AP per cell", "The deeper the colour, the higher the AP; one scale for all of these."))
    sides: list[Side] = ["candidate", "baseline"] if has_baseline(report) else ["candidate"]
    reach = max(_largest(precision_grid(report, kind, side)) for kind in shown for side in sides)
    sections.append(cards([_precisions(report, kind, side, reach) for side in sides for kind in shown]))
    return sections


def _section(title: str, text: str) -> str:
    return f'<h2>{subscripted(title)}</h2><p class="faint">{subscripted(text)}</p>'


def _interval_note(report: HuddleReport) -> str:
    colors = "Blue: the candidate is better; orange: worse."
    if not report["bootstrap"]:
        return f"{colors} Without intervals: --bootstrap N adds them."
    return f"{colors} Small: 95 % interval from {report['bootstrap']} bootstrap samples of the cell's images."


def _differences(report: HuddleReport, kind: Kind) -> str:
    reach = max(_largest(difference_grid(report, each)) for each in kinds(report))

    def show(cell: Cell) -> HeatCell:
        value = difference(cell, kind)
        bounds = interval(cell, kind)
        return HeatCell(
            text=points(value, sign=True),
            share=abs(value or 0.0) / reach,
            hue="less" if (value or 0.0) < 0 else "more",
            small="" if bounds is None else "…".join(points(bound, sign=True) for bound in bounds),
            title=_size_of(cell),
        )

    return _heat(report, f"{KIND_NAMES[kind].capitalize()} AP", show)


def _precisions(report: HuddleReport, kind: Kind, side: Side, reach: float) -> str:
    def show(cell: Cell) -> HeatCell:
        value = precision(cell, kind, side)
        return HeatCell(points(value), share=(value or 0.0) / reach, title=_size_of(cell))

    return _heat(report, f"{KIND_NAMES[kind].capitalize()} AP, {side}", show)


def _images(report: HuddleReport) -> str:
    reach = _largest(image_grid(report))

    def show(cell: Cell) -> HeatCell:
        return HeatCell(str(cell["images"]), share=cell["images"] / reach, title=_size_of(cell))

    return _heat(report, "Images per cell", show, keep_empty=True)


def _heat(report: HuddleReport, caption: str, show: Callable[[Cell], HeatCell], *, keep_empty: bool = False) -> str:
    rows, columns = axes(report)
    body = [
        (f"{t_o:g}", [None if cell is None or not (cell["images"] or keep_empty) else show(cell) for cell in cells])
        for t_o, cells in zip(rows, cell_rows(report), strict=True)
    ]
    return heat_table(caption, _CORNER, [f"{value:g}" for value in columns], body)


def _largest(grid: Grid) -> float:
    """The largest size in a grid, for scales; never 0."""
    return max(float(np.abs(grid[np.isfinite(grid)]).max(initial=0.0)), 1e-9)


def _size_of(cell: Cell) -> str:
    return f"{cell['images']} images, {cell['instances']} instances"


# --- instances, overlaps, gallery -------------------------------------------------------------------


def instance_table(report: HuddleReport) -> str:
    """AP over the huddled instances alone."""
    text = (
        "AP over the instances that are huddled at T_O, in all images. The others are ignored: finding them counts "
        "neither way. A detection that matches nothing is a false positive."
    )
    return _section("Huddled instances by themselves", text) + cards([plain_table(*instance_rows(report))])


def data_section(study: HuddleStudy) -> str:
    """What the numbers stand on: images per cell, and how strongly the instances overlap."""
    overlaps = study.overlaps[~np.isnan(study.overlaps)]
    lone = int(np.count_nonzero(overlaps == 0))
    share = 1 - lone / max(len(overlaps), 1)
    text = f"{len(overlaps) - lone} of {len(overlaps)} instances overlap another one ({share:.0%})."
    return _section("The data", text) + cards([_images(study.report), overlap_chart(study)])


def overlap_chart(study: HuddleStudy) -> str:
    """Instances of the ground truth by their largest overlap."""
    overlaps = study.overlaps[~np.isnan(study.overlaps)]
    counts, edges = np.histogram(overlaps[overlaps > 0], bins=10, range=(0.0, 1.0))
    bars = [("none", int(np.count_nonzero(overlaps == 0)))]
    bars += [
        (f"{low:.1f} to {high:.1f}", int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return bar_chart(f"Instances by largest overlap ({OVERLAP_NAMES[study.report['overlap']]})", bars)


def gallery_section(entries: Sequence[GalleryEntry], *, compared: bool, score_threshold: float) -> str:
    """Pictures of the images on which results differ most, or without a baseline fail most."""
    title = "Where the results differ most" if compared else "Where the results are worst"
    if not entries:
        return _section(title, "There is no such image.")
    order = "largest difference first" if compared else "lowest first"
    text = (
        f"Images with huddled instances by their own AP, {order}. Each instance has a colour and an outline of its "
        f"own; results that score at least {score_threshold:g} are drawn."
    )
    return _section(title, text) + "".join(gallery_entry(entry) for entry in entries)


def gallery_entry(entry: GalleryEntry) -> str:
    """One image: its panels side by side, below each other on a phone."""
    panels = "".join(_panel(entry, panel) for panel in entry.panels)
    about = f"{entry.instances} instances, {entry.huddled} huddled"
    change = ""
    if entry.change is not None:
        look = "up" if entry.change > 0 else "down"
        change = f' · <b class="{look}">{points(entry.change, sign=True)}</b>'
    return (
        f'<article class="entry"><header><b>{escape(entry.name)}</b><span class="faint">{about}{change}</span></header>'
        f'<div class="panels" style="--panels:{len(entry.panels)}">{panels}</div></article>'
    )


def _panel(entry: GalleryEntry, panel: GalleryPanel) -> str:
    text = f"{panel.shown} instances"
    if panel.precision is not None:
        text = f"AP {points(panel.precision)} · {panel.shown} drawn"
    image = picture(panel.picture, text=f"{panel.role} of {entry.name}")
    return f"<figure>{image}<figcaption><b>{panel.role}</b> {text}</figcaption></figure>"
