"""``state.json`` of a run's folder: what the run is doing, for those who only see its files."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dsctool.errors import DataError
from dsctool.files import read_json, write_text

STATE = "state.json"
Word = Literal["running", "finished", "stopped", "failed"]
SHOWN = ("running", "running?", "finished", "stopped", "failed", "killed", "unknown")
"""What a state can be for those who look at it from outside."""


@dataclass(frozen=True)
class RunState:
    """What a run has last said of itself.

    word: ``stopped`` by a signal, or for a reason that its user can mend; ``failed`` by anything else.
    steps: optimiser steps of the whole run. epochs: they are, the last one perhaps in part. reason: why it ended.
    host, process: where it runs, or ran last.
    """

    word: Word
    steps: int
    epochs: int
    reason: str = ""
    host: str = ""
    process: int = 0

    @classmethod
    def here(cls, word: Word, *, steps: int, epochs: int, reason: str = "") -> RunState:
        """Of this process."""
        return cls(word, steps, epochs, reason, platform.node(), os.getpid())

    @property
    def seen(self) -> str:
        """One of ``SHOWN``: a run whose process is gone was ``killed``; of another machine's nobody here can know."""
        if self.word != "running":
            return self.word
        if self.host != platform.node():
            return "running?"
        return "running" if _alive(self.process) else "killed"


def write_state(folder: Path, state: RunState) -> None:
    """Write it to the folder of a run, whole or not at all."""
    write_text(folder / STATE, json.dumps(asdict(state), indent=2) + "\n")


def read_state(folder: Path) -> RunState | None:
    """What the run in ``folder`` has said; None where it has said nothing.

    Raises:
        DataError: the file is none of a run.
    """
    path = folder / STATE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return RunState(**content)  # type: ignore[arg-type]
    except TypeError:
        raise DataError(f"{path}: is no state of a run") from None


def _alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
