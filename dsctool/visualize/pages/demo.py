"""The page at the end of ``dsctool demo``: what was made, for a person who knows nothing of the papers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from dsctool.files import write_text
from dsctool.visualize.pages.html import cards, facts, page, picture, plain_table, subscripted
from dsctool.visualize.pages.huddle.page import tables

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
    stats = {name: _read(folder / name / "stats.json") for name, _ in MODELS}
    sections = [
        _header(stats, _read(folder / "huddle/huddle.json"), parts),
        _scenes(folder, images),
        _accuracy(stats, {name: _training(folder / name) for name, _ in MODELS}),
        _huddles(folder),
        _findings(folder, images),
        _stages(folder, images),
        _switch(folder, images),
        _commands(parts),
    ]
    write_text(target, page("dsctool demo", sections))


def _header(stats: dict[str, Any], huddle: dict[str, Any], parts: Sequence[Part]) -> str:
    whole = huddle["cells"][0]
    minutes = sum(part.seconds for part in parts) / 60
    entries = [
        (f"{100 * stats['dsc']['segm']['AP50']:.0f} %", "mask AP50 of the DSC model on scenes it has not seen"),
        (f"{100 * stats['htc']['segm']['AP50']:.0f} %", "mask AP50 of HTC after as many steps"),
        (f"{whole['images']}", f"scenes to test on, with {whole['instances']} objects"),
        (f"{minutes:.1f} min", "for everything on this page"),
    ]
    return (
        "<header><h1>What dsctool does</h1>"
        '<p class="lead">Finding every single thing in a picture is hard where things lie on each other. Two models '
        "have just learned it from scratch on generated scenes. Below: how good they are, where they fail, and what "
        "goes on inside.</p>"
        f"{facts(entries)}</header>"
    )


def _scenes(folder: Path, images: Sequence[str]) -> str:
    text = (
        "Made by the program, so that every visible pixel of every object is known. Animals, shells and pebbles lie "
        "in heaps of their own kind, in sizes from a few pixels to half of the picture. Same seed, same scenes."
    )
    shown = [_picture(folder / "scenes/val" / name, f"scene {name}") for name in images[:3]]
    return _section("The scenes", text) + _panels(shown)


def _accuracy(stats: dict[str, Any], training: dict[str, str]) -> str:
    text = (
        "AP is the usual score of this field: 100 is perfect. AP50 counts a find as right when it covers the object "
        "with at least half of their common area; AP averages over ever stricter demands. Both models had the same "
        "scenes and the same number of steps. Trained so shortly, they are not good yet, and which of the two is ahead "
        "says little about the full-size ones."
    )
    header = ["", "box AP", "box AP50", "mask AP", "mask AP50", "small / medium / large", "training"]
    rows = []
    for name, title in MODELS:
        box, mask = stats[name]["bbox"], stats[name]["segm"]
        sizes = " / ".join(_points(mask[key]) for key in ("APs", "APm", "APl"))
        values = [_points(part[key]) for part in (box, mask) for key in ("AP", "AP50")]
        rows.append([title, *values, sizes, training[name]])
    return _section("Two models", text) + cards([plain_table(header, rows)])


def _training(run: Path) -> str:
    """How many steps of how many seconds: also where the run was stopped and went on."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "train"]
    return f"{steps[-1]['step']} steps of {median(entry['step_time'] for entry in steps):.2f} s"


def _huddles(folder: Path) -> str:
    text = (
        "How many points of AP the DSC model is ahead of HTC on ever more crowded scenes, and below it the range that "
        "holds 95 % of such leads when scenes are drawn anew. In a row T_O, things count as huddled when they overlap "
        "a neighbour by more than T_O; a column T_P has the scenes of which more than that share is huddled. To the "
        "lower right it gets harder, and few scenes make the numbers jump."
    )
    link = (
        '<p>All of it, with the scenes where the two differ most: <a href="huddle/report.html">huddle report</a>.</p>'
    )
    return _section("Where things crowd", text) + "".join(tables(_read(folder / "huddle/huddle.json"))[1:2]) + link


def _findings(folder: Path, images: Sequence[str]) -> str:
    text = "The most crowded scenes, with what the DSC model finds in them: each thing in a colour of its own."
    shown = [
        _picture(folder / "found/overlays" / f"{Path(name).stem}.jpg", f"results on {name}") for name in images[:6]
    ]
    return _section("What it finds", text) + _panels(shown)


def _stages(folder: Path, images: Sequence[str]) -> str:
    text = (
        "DSC predicts rough masks first (mRPN) and lets them guide the boxes of the next stage, again and again: "
        "features on the object count more than those around it. From left to right the masks become surer and the "
        "boxes (thin frames) close in."
    )
    strips = (_strip(folder / "found/stages" / f"{Path(name).stem}.jpg", f"stages on {name}") for name in images[:2])
    return _section("How masks guide boxes", text) + "".join(strips)


def _switch(folder: Path, images: Sequence[str]) -> str:
    text = (
        "The backbone can look closely or widely (small or large atrous rate) and learns where to do which: the "
        "switch, 1 for close and 0 for wide, is a map over the picture. Dark is wide. It starts at 1 everywhere and "
        "may leave that range: blue is below 0. After so short a training it differs more between the stages than "
        "between places, so each map is stretched over its own range."
    )
    overall = _read(folder / "switch/switch.json")["overall"]
    values = [
        (_switch_value(overall[size]), f"mean switch inside {size} objects") for size in ("small", "medium", "large")
    ]
    sheets = (_strip(folder / "switch/sheets" / f"{Path(name).stem}.png", f"switch on {name}") for name in images[:1])
    return _section("Where it looks closely, and where widely", text) + facts(values) + "".join(sheets)


def _commands(parts: Sequence[Part]) -> str:
    text = "Every part of this page was made by one of these; each can be run again, changed, or run on your own data."
    rows = "".join(
        f'<article class="entry"><header><b>{escape(part.title)}</b><span class="faint">{part.seconds:.0f} s</span>'
        f"</header><code>{escape(part.command)}</code></article>"
        for part in parts
    )
    return _section("The commands", text) + rows


# --- pieces -------------------------------------------------------------------------------------------


def _section(title: str, text: str) -> str:
    return f"<h2>{escape(title)}</h2><p>{subscripted(text)}</p>"


def _panels(images: Sequence[str]) -> str:
    inner = "".join(f"<figure>{image}</figure>" for image in images)
    return f'<div class="panels" style="--panels:3;margin:10px 0">{inner}</div>'


def _strip(path: Path, text: str) -> str:
    return f'<div class="wide strip">{_picture(path, text, longest=2200)}</div>'


def _picture(path: Path, text: str, *, longest: int = LONGEST) -> str:
    with Image.open(path) as image:
        shown = image.convert("RGB")
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture(shown, text=text)


def _points(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.1f}"


def _switch_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
