"""The page about a run, made of what is in the run's folder: ``report.html``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dsctool.config.dump import config_to_yaml
from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.rows import Table, points
from dsctool.files import read_json, write_text
from dsctool.runs.differences import nearest_shipped, shown
from dsctool.runs.history import History, Line, epoch_text
from dsctool.runs.losses import explain_losses
from dsctool.runs.summary import RunSummary
from dsctool.terms import KIND_NAMES
from dsctool.visualize.pages.html import render
from dsctool.visualize.pages.run.charts import run_charts
from dsctool.visualize.pages.run.pictures import (
    SCORE,
    Picture,
    load_picture,
    read_pictures,
    save_pictures,
    thinned,
)

PAGE = "report.html"
LARGE, THUMBNAIL = 560, 190
"""Pixels of a picture's longer side."""
EARLIER = 12
"""Earlier evaluations that are shown of each image."""


class RunPage:
    """What ``dsctool train`` gives its runs: see :class:`dsctool.engine.page.Page`."""

    def draw(self, folder: Path, comparison: Comparison, images: Path, *, step: int) -> None:
        save_pictures(folder, comparison, images, step=step)

    def write(self, folder: Path) -> None:
        write_text(folder / PAGE, run_page(folder))


@dataclass(frozen=True)
class Pair:
    """An image's truth and what was found, with words; earlier: epoch and picture of earlier evaluations."""

    picture: Picture
    truth: Image.Image
    found: Image.Image
    earlier: Sequence[tuple[str, Image.Image]] = ()


def run_page(folder: Path) -> str:
    """The whole document.

    Raises:
        ConfigError, DataError: a file of the folder is none of a run.
    """
    run = RunSummary.of(folder)
    history, nearest = run.history, nearest_shipped(run.config)
    environment = read_json(folder / "env.json")
    assert isinstance(environment, dict)
    fixed, worst = _pairs(folder, history.evaluations)
    last = history.evaluations[-1] if history.evaluations else None
    values = {
        "name": folder.resolve().name,
        "run": run,
        "written": time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        "summary": _summary(run),
        "charts": run_charts(history),
        "fixed": fixed,
        "worst": worst,
        "score": SCORE,
        "epoch": None if last is None else epoch_text(last["epoch"]),
        "accuracy": _accuracy(history),
        "nearest": nearest.name,
        "differences": [[each.key, shown(each.left), shown(each.right)] for each in nearest.differences],
        "yaml": config_to_yaml(run.config),
        "environment": _environment(environment),
        "losses": explain_losses(history.losses()) if history.train else [],
        "others": _OTHERS,
        "commands": _commands(folder, run),
    }
    return render("run.html", values)


_OTHERS = [
    ("lr", "learning rate"),
    ("grad_norm", "length of the whole gradient before it is clipped"),
    ("data_share", "share of the time in which training waited for images"),
    ("memory", "the most memory so far, in GiB: of the GPU, else of the process"),
    ("AP", "mean over classes and over how well a find must cover its object (IoU 0.50 to 0.95)"),
    ("AP50", "the same where half of it (IoU 0.50) is enough"),
]


def _summary(run: RunSummary) -> list[tuple[str, str]]:
    """The numbers that sum a run up, each with what it is."""
    history, steps = run.history, run.steps
    facts = []
    best, main = history.best, history.main
    if best is not None and main is not None:
        text = f"best {KIND_NAMES[main]} AP, after epoch {epoch_text(best['epoch'])}"
        facts.append((points(best[f"{main}_AP"]), text))
    whole = "" if steps is None else f" of {steps}"
    facts.append((f"{history.step}", f"steps{whole}, {epoch_text(history.epoch)} of {run.epochs} epochs"))
    if history.seconds is not None:
        facts.append((_duration(history.seconds), "of training and evaluation so far"))
    if history.train:
        line = history.train[-1]
        facts.append((f"{line['images_per_s']:.2g}", "images per second"))
        if "memory" in line:
            facts.append((f"{line['memory']:.1f} GiB", "memory at most"))
    return facts


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"


def _accuracy(history: History) -> Table | None:
    """A row for each evaluation, the last one first."""
    if not history.evaluations:
        return None
    columns = [
        (f"{KIND_NAMES[kind]} {name}", f"{kind}_{name}")
        for kind in ("segm", "bbox")
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
        if any(f"{kind}_{name}" in line for line in history.evaluations)
    ]
    best = history.best
    rows = [
        [epoch_text(line["epoch"]) + (" (best)" if line is best else ""), str(line["step"])]
        + [_points(line.get(key)) for _, key in columns]
        for line in reversed(history.evaluations)
    ]
    return ["epoch", "step", *(title for title, _ in columns)], rows


def _points(value: float | None) -> str:
    return points(None if value is None or value < 0 else value)


def _pairs(folder: Path, evaluations: Sequence[Line]) -> tuple[list[Pair], list[Pair]]:
    """The fixed images and the worst ones of the last evaluation of which there are pictures."""
    by_step = {line["step"]: made for line in evaluations if (made := read_pictures(folder, line["step"])) is not None}
    if not by_step:
        return [], []
    epochs = {line["step"]: epoch_text(line["epoch"]) for line in evaluations}
    *steps, last = by_step
    earlier = thinned(steps, EARLIER)

    def pair(picture: Picture, strip: Sequence[tuple[str, str]]) -> Pair:
        truth, found = (load_picture(folder, name, longest=LARGE) for name in (picture.truth, picture.found))
        return Pair(
            picture, truth, found, [(epoch, load_picture(folder, name, longest=THUMBNAIL)) for epoch, name in strip]
        )

    fixed = []
    for picture in by_step[last].fixed:
        before = [(epochs[step], each) for step in earlier for each in by_step[step].fixed if each.name == picture.name]
        fixed.append(pair(picture, [(epoch, each.found) for epoch, each in before]))
    return fixed, [pair(picture, ()) for picture in by_step[last].worst]


def _environment(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values; lists are command lines."""
    return [(name, shlex.join(value) if isinstance(value, list) else str(value)) for name, value in content.items()]


def _commands(folder: Path, run: RunSummary) -> list[tuple[str, str]]:
    """What one may do next, and how."""
    best = str(folder / "best.pt")
    commands = []
    if run.resumable:
        words = ["dsctool", "train", "--output", str(folder), "--resume", "--data", "DIR"]
        commands.append(("Go on with it", shlex.join(words)))
    if (folder / "best.pt").exists():
        commands += [
            ("Measure it", shlex.join(["dsctool", "eval", best, "--data", "DIR", "--errors", "errors"])),
            ("Find things in pictures", shlex.join(["dsctool", "predict", best, "IMAGES", "--output", "found"])),
        ]
    return commands
