"""The first and the last words of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from dsctool.engine.progress import duration
from dsctool.engine.run import Run
from dsctool.engine.setup import summary
from dsctool.terms import KIND_NAMES

FILES = {
    "best.pt": "to use",
    "last.pt": "to continue",
    "report.html": "to look at",
}
"""What a run leaves for people, and what for."""


def announce(run: Run) -> None:
    """Say what the run will do, before it does it."""
    for name, text in summary(run.setup).items():
        _say(run, name, text)
    for note in run.setup.notes:
        run.recorder.journal.say(note)
    if run.position.step:
        _say(run, "resumed", f"after step {run.position.step}, in {run.epoch_name}")


def conclude(run: Run, data: Path, output: Path) -> None:
    """Say what came out, where it is, and what to do with it."""
    patience, step = run.setup.config.train.early_stop, run.position.step
    if patience is not None and run.stale >= patience and step < run.setup.steps:
        _say(run, "stopped early", f"no higher AP in {run.stale} evaluations (train.early_stop={patience})")
    _say(run, "finished", f"{step} steps in {duration(run.recorder.elapsed)}")
    _say(run, "best", _best(run))
    for title, (name, purpose) in zip(("files", "", ""), FILES.items(), strict=True):
        if (output / name).exists():
            _say(run, title, f"{output / name} ({purpose})")
    best = str(output / "best.pt")
    _say(run, "next", shlex.join(["dsctool", "eval", best, "--data", str(data)]))
    _say(run, "", shlex.join(["dsctool", "predict", best, "IMAGES", "--output", "found"]))


def _best(run: Run) -> str:
    if run.best is None:
        return "never evaluated: best.pt has the last weights"
    masks = run.metrics is not None and run.metrics["segm"] is not None
    kind = KIND_NAMES["segm" if masks else "bbox"]
    epoch = "" if run.best_epoch is None else f" in epoch {run.best_epoch}"
    return f"{kind} AP {run.best:.4f}{epoch}"


def _say(run: Run, name: str, text: str) -> None:
    run.recorder.journal.say(f"{name:<16} {text}")
