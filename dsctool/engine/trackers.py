"""Where a run's numbers go: ``metrics.jsonl`` always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dsctool.files import write_text
from dsctool.interop.checkpoint import TrainingState

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """Receives named numbers of a run."""

    def log(self, kind: str, *, step: int, epoch: float, numbers: Numbers) -> None:
        """Record ``numbers`` after ``step`` optimiser steps; ``kind`` is ``train`` or ``eval``."""

    def close(self) -> None:
        """Flush and release the files."""


class JsonLines:
    """One JSON object a line: ``{"kind": "train", "step": 50, "epoch": 0.4, "lr": ..., ...}``."""

    def __init__(self, path: Path, *, resumed: TrainingState | None = None) -> None:
        """Append to ``path``. A run resumed from a state first drops the lines that it will write again."""
        if resumed is not None and path.exists():
            lines = (line for line in _complete_lines(path) if _is_past(json.loads(line), resumed))
            write_text(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8")

    def log(self, kind: str, *, step: int, epoch: float, numbers: Numbers) -> None:
        self._file.write(json.dumps({"kind": kind, "step": step, "epoch": round(epoch, 4), **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Curves for TensorBoard, grouped by ``train/`` and ``eval/``."""

    def __init__(self, folder: Path, *, resumed: TrainingState | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional dependency

        purge = None if resumed is None else resumed.step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def log(self, kind: str, *, step: int, epoch: float, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


def open_trackers(folder: Path, *, resumed: TrainingState | None) -> list[Tracker]:
    """The trackers of the run in ``folder``; ``resumed`` is the state that a resumed run continues from."""
    trackers: list[Tracker] = [JsonLines(folder / "metrics.jsonl", resumed=resumed)]
    if importlib.util.find_spec("tensorboard") is not None:
        trackers.append(TensorBoard(folder, resumed=resumed))
    return trackers


def _is_past(line: Mapping[str, Any], state: TrainingState) -> bool:
    """Whether what ``line`` records was done when ``state`` was saved; an evaluation may have been still to come."""
    if line["step"] == state.step:
        return line["kind"] == "train" or state.batch == 0
    return bool(line["step"] < state.step)


def _complete_lines(path: Path) -> list[str]:
    """Lines of ``path`` that end in a newline: a killed run can leave half a line at the end."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
