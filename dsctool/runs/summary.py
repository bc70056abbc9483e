"""A run as its folder tells of it, and where runs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path

from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.errors import DataError
from dsctool.runs.history import METRICS, History, read_history
from dsctool.runs.state import RunState, read_state

CONFIG = "config.yaml"
LAST = "last.pt"


@dataclass(frozen=True)
class RunSummary:
    """What a folder says of its run. said: what the run has last said of itself; None where it has said nothing."""

    folder: Path
    config: Config
    history: History
    said: RunState | None

    @classmethod
    def of(cls, folder: Path) -> RunSummary:
        """The run in a folder.

        Raises:
            ConfigError, DataError: a file there is none of a run; the message names it.
        """
        return cls(folder, load_config(folder / CONFIG), read_history(folder / METRICS), read_state(folder))

    @property
    def state(self) -> str:
        """One of :data:`dsctool.runs.state.SHOWN`."""
        if self.said is not None:
            return self.said.seen
        train, history = self.config.train, self.history
        done = history.epoch >= train.epochs if train.steps is None else history.step >= train.steps
        return "finished" if done else "unknown"

    @cached_property
    def resumable(self) -> bool:
        """Whether ``dsctool train --output FOLDER --resume`` would go on with it, and nobody does already."""
        return (self.folder / LAST).is_file() and self.state not in ("running", "finished")

    @property
    def steps(self) -> int | None:
        """Of the whole run; None where nobody knows."""
        if self.said is not None:
            return self.said.steps
        return self.config.train.steps

    @property
    def epochs(self) -> int:
        """Of the whole run."""
        return self.config.train.epochs if self.said is None else max(self.said.epochs, ceil(self.history.epoch))


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Folders of runs: ``places`` themselves, or what is in them, at any depth.

    Raises:
        DataError: a place is no folder, or there is no run in it.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise DataError(f"{place}: {'is no folder' if place.exists() else 'does not exist'}; name folders of runs")
        inside = [file.parent for file in place.rglob(CONFIG)]
        runs = sorted(folder for folder in inside if (folder / "env.json").is_file())
        if not runs:
            raise DataError(f"{place}: there is no run in it (a folder with {CONFIG} and env.json)")
        found |= dict.fromkeys(runs)
    return list(found)
