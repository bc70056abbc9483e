"""The page at the end of ``dsctool demo``: what was made, for a person who knows nothing of the papers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from dsctool.evaluation.coco import Stats
from dsctool.evaluation.rows import Table, points
from dsctool.files import write_text
from dsctool.visualize.pages.html import render
from dsctool.visualize.pages.huddle.maps import difference_maps

DRAWN_FROM = 0.3
"""The score from which on ``dsctool predict`` draws results, where nothing else is said."""
LONGEST = 1180
"""Pixels of a wide picture's longer side."""
MODELS = (("dsc", "DSC on RFP and SAC (dsc_detectors_tiny)"), ("htc", "HTC (htc_tiny)"))


@dataclass(frozen=True)
class Part:
    """A command that ran. seconds: how long it took."""

    title: str
    command: str
    seconds: float


def write_demo_page(target: Path, folder: Path, *, images: Sequence[str], parts: Sequence[Part]) -> None:
    """Write the page, whole or not at all, from what the commands left in ``folder``.

    images: names of the val images that were drawn, the most huddled first.
    """
    huddles = _read(folder / "huddle/huddle.json")
    stats = {name: _read(folder / name / "stats.json") for name, _ in MODELS}
    values = {
        "parts": parts,
        "minutes": sum(part.seconds for part in parts) / 60,
        "stats": stats,
        "accuracy": _accuracy(stats, {name: _training(folder / name) for name in stats}),
        "whole": huddles["cells"][0],
        "differences": difference_maps(huddles),
        "switch": _read(folder / "switch/switch.json")["overall"],
        "scenes": [(name, _picture(folder / "scenes/val" / name)) for name in images[:3]],
        "drawn": sum(result["score"] >= DRAWN_FROM for result in _read(folder / "found/predictions.json")),
        "drawn_from": DRAWN_FROM,
        "found": _pictures(folder / "found/overlays", ".jpg", images[:6]),
        "stages": _pictures(folder / "found/stages", ".jpg", images[:2], longest=2200),
        "divided": _pictures(folder / "panoptic/overlays", ".jpg", images[:3]),
        "sheets": _pictures(folder / "switch/sheets", ".png", images[:1], longest=2200),
    }
    write_text(target, render("demo.html", values))


def _accuracy(stats: Mapping[str, Stats], training: Mapping[str, str]) -> Table:
    """A row for each model, from what it reached and how it was trained."""
    header = ["", "box AP", "box AP50", "mask AP", "mask AP50", "small / medium / large", "training"]
    rows = []
    for name, title in MODELS:
        box, mask = stats[name]["bbox"], stats[name]["segm"] or {}
        values = [_points(part[key]) for part in (box, mask) for key in ("AP", "AP50")]
        sizes = " / ".join(_points(mask[key]) for key in ("APs", "APm", "APl"))
        rows.append([title, *values, sizes, training[name]])
    return header, rows


def _training(run: Path) -> str:
    """How many steps of how many seconds: also where the run was stopped and went on."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "train"]
    return f"{steps[-1]['step']} steps of {median(entry['step_time'] for entry in steps):.2f} s"


def _pictures(
    folder: Path, ending: str, images: Sequence[str], *, longest: int = LONGEST
) -> list[tuple[str, Image.Image]]:
    """What was drawn of each image, with the image's name."""
    return [(name, _picture(folder / f"{Path(name).stem}{ending}", longest=longest)) for name in images]


def _picture(path: Path, *, longest: int = LONGEST) -> Image.Image:
    with Image.open(path) as image:
        shown = image.convert("RGB")
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return shown


def _points(value: float) -> str:
    return points(None if value < 0 else value)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
