"""Where a run's numbers go: ``metrics.jsonl`` always, TensorBoard where it is installed, W&B where it is asked for."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from dsctool.config.schema import Config
from dsctool.errors import ConfigError
from dsctool.files import write_text
from dsctool.interop.checkpoint import TrainingState
from dsctool.runs.history import METRICS, complete_lines

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """Receives named numbers of a run."""

    def log(self, kind: str, *, step: int, epoch: float, elapsed: float, numbers: Numbers) -> None:
        """Record ``numbers`` after ``step`` optimiser steps; ``kind`` is ``train`` or ``eval``.

        elapsed: seconds that the run has taken so far, without the time between its sittings.
        """

    def close(self) -> None:
        """Flush and release the files."""


class JsonLines:
    """One JSON object a line: ``{"kind": "train", "step": 50, "epoch": 0.4, "time": ..., "elapsed": ..., "lr": ...}``.

    ``time`` is in seconds since 1970, UTC.
    """

    def __init__(self, path: Path, *, resumed: TrainingState | None = None) -> None:
        """Append to ``path``. A run resumed from a state first drops the lines that it will write again."""
        if resumed is not None and path.exists():
            lines = (line for line in complete_lines(path) if _is_past(json.loads(line), resumed))
            write_text(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8")

    def log(self, kind: str, *, step: int, epoch: float, elapsed: float, numbers: Numbers) -> None:
        at = {"step": step, "epoch": round(epoch, 4), "time": round(time.time(), 1), "elapsed": round(elapsed, 1)}
        self._file.write(json.dumps({"kind": kind, **at, **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Curves for TensorBoard, grouped by ``train/`` and ``eval/``."""

    def __init__(self, folder: Path, *, resumed: TrainingState | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional dependency

        purge = None if resumed is None else resumed.step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def log(self, kind: str, *, step: int, epoch: float, elapsed: float, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project, which goes on where this one does; ``WANDB_MODE=offline`` needs no network.

    Its id is kept in the folder of the run. A step that a resumed run does again has the same numbers, and is passed
    over there.
    """

    def __init__(self, folder: Path, *, project: str, config: Config) -> None:
        import wandb  # optional dependency

        file = folder / "wandb-id.txt"
        if not file.exists():
            write_text(file, f"{uuid4().hex[:12]}\n")
        self._run = wandb.init(
            project=project,
            id=file.read_text(encoding="utf-8").strip(),
            name=folder.resolve().name,
            dir=str(folder),
            resume="allow",
            config=config.model_dump(mode="json"),
        )

    def log(self, kind: str, *, step: int, epoch: float, elapsed: float, numbers: Numbers) -> None:
        named = {f"{kind}/{name}": value for name, value in numbers.items()}
        self._run.log({**named, "epoch": epoch, "elapsed": elapsed}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_trackers(folder: Path, config: Config, *, resumed: TrainingState | None) -> list[Tracker]:
    """The trackers of the run in ``folder``; ``resumed`` is the state that a resumed run continues from."""
    trackers: list[Tracker] = [JsonLines(folder / METRICS, resumed=resumed)]
    if importlib.util.find_spec("tensorboard") is not None:
        trackers.append(TensorBoard(folder, resumed=resumed))
    if config.train.wandb is not None:
        trackers.append(WeightsAndBiases(folder, project=config.train.wandb, config=config))
    return trackers


def refuse_missing_trackers(config: Config) -> None:
    """Raise ConfigError when numbers are to go where nothing is installed that takes them."""
    if config.train.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"train.wandb={config.train.wandb}, but wandb is not installed: pip install 'dsctool[wandb]', or set "
            "train.wandb=null"
        )


def _is_past(line: Mapping[str, Any], state: TrainingState) -> bool:
    """Whether what ``line`` records was done when ``state`` was saved; an evaluation may have been still to come."""
    if line["step"] == state.step and line["kind"] == "train":  # unless its window was still open
        return not any(window["steps"] for window in state.windows)
    if line["step"] == state.step:
        return state.batch == 0 or state.evaluated == state.step
    return bool(line["step"] < state.step)
