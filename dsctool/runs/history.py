"""The numbers that a run has recorded in ``metrics.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsctool.errors import DataError
from dsctool.terms import KIND_NAMES, Kind

METRICS = "metrics.jsonl"
Line = Mapping[str, Any]
"""``{"kind": "train", "step": 50, "epoch": 0.4, "time": ..., "elapsed": ..., "lr": ..., ...}``."""


@dataclass(frozen=True)
class History:
    """train: a line per log interval. evaluations: a line for each. Both in the order of their steps."""

    train: Sequence[Line] = ()
    evaluations: Sequence[Line] = ()

    @property
    def step(self) -> int:
        """The last one that is recorded; 0 before the first."""
        return max((int(lines[-1]["step"]) for lines in (self.train, self.evaluations) if lines), default=0)

    @property
    def epoch(self) -> float:
        """Of that step, counted from 0."""
        return max((float(lines[-1]["epoch"]) for lines in (self.train, self.evaluations) if lines), default=0.0)

    @property
    def seconds(self) -> float | None:
        """That the run has taken so far, without the time between its sittings; None where nobody wrote it down."""
        times = [float(line["elapsed"]) for line in (*self.train, *self.evaluations) if "elapsed" in line]
        return max(times, default=None)

    @property
    def main(self) -> Kind | None:
        """What decides which evaluation is the best: masks where there are any; None before the first one."""
        if not self.evaluations:
            return None
        return "segm" if "segm_AP" in self.evaluations[-1] else "bbox"

    @property
    def best(self) -> Line | None:
        """The evaluation that ``best.pt`` is from: the first of highest AP."""
        return None if self.main is None else max(self.evaluations, key=lambda line: line[f"{self.main}_AP"])

    def losses(self) -> list[str]:
        """Names of the losses, without their sum."""
        return loss_names(self.train[-1]) if self.train else []


def loss_names(line: Line) -> list[str]:
    """The losses in a line of training, without their sum."""
    return [name for name in line if "loss" in name and name != "loss" and not name.startswith("val_")]


def best_text(history: History) -> str:
    """Such as ``mask AP 0.4120 in epoch 9``; ``never evaluated`` before the first evaluation."""
    best, main = history.best, history.main
    if best is None or main is None:
        return "never evaluated"
    return f"{KIND_NAMES[main]} AP {best[f'{main}_AP']:.4f} in epoch {epoch_text(best['epoch'])}"


def epoch_text(epoch: float) -> str:
    """``3`` for whole epochs, ``2.5`` in between."""
    return f"{epoch:.2f}".rstrip("0").rstrip(".")


def read_history(path: Path) -> History:
    """What a file of metrics holds; empty where there is none. What a killed run left half written is not looked at.

    Raises:
        DataError: a line is none of a run.
    """
    if not path.exists():
        return History()
    lines: dict[str, list[Line]] = {"train": [], "eval": []}
    for number, text in enumerate(complete_lines(path), start=1):
        try:
            line = json.loads(text)
            lines[line["kind"]].append(line | {"step": int(line["step"]), "epoch": float(line["epoch"])})
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}: line {number} is no line of a run's metrics: {text.strip()[:80]}") from None
    return History(lines["train"], lines["eval"])


def complete_lines(path: Path) -> list[str]:
    """Lines of ``path`` that end in a newline: a killed run can leave half a line at the end."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
