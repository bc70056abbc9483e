"""Everything that a run writes and shows, in one place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console

from dsctool.config.dump import config_to_yaml
from dsctool.engine.environment import environment
from dsctool.engine.progress import Journal, RunProgress
from dsctool.engine.setup import Setup
from dsctool.engine.trackers import Tracker, open_trackers
from dsctool.errors import DsctoolError
from dsctool.files import write_text
from dsctool.interop.checkpoint import Checkpoint, TrainingState, save_checkpoint


class Recorder:
    """The folder of a run and what is on the console; a silent one has neither, and takes everything all the same.

    folder: where checkpoints go; None: nowhere.
    """

    def __init__(
        self, *, folder: Path | None, journal: Journal, progress: RunProgress, trackers: Sequence[Tracker]
    ) -> None:
        self._folder = folder
        self._trackers = trackers
        self.journal = journal
        self.progress = progress

    def track(self, kind: str, *, step: int, epoch: float, numbers: Mapping[str, float]) -> None:
        """Send ``numbers`` to every tracker."""
        for tracker in self._trackers:
            tracker.log(kind, step=step, epoch=epoch, numbers=numbers)

    def save(self, name: Literal["last.pt", "best.pt"], checkpoint: Checkpoint) -> None:
        """Write ``checkpoint``, whole or not at all."""
        if self._folder is not None:
            save_checkpoint(self._folder / name, checkpoint)


@contextmanager
def open_recorder(setup: Setup, folder: Path, *, resumed: TrainingState | None, console: Console) -> Iterator[Recorder]:
    """Records a run in ``folder``, which is made now; the first process does, the others are silent.

    resumed: the state that a resumed run continues from.
    """
    done = 0 if resumed is None else resumed.step
    if not setup.processes.first:
        journal = Journal(Console(quiet=True))
        progress = RunProgress(journal, steps=setup.steps, done=done)
        yield Recorder(folder=None, journal=journal, progress=progress, trackers=())
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config_to_yaml(setup.config))
    write_text(folder / "env.json", json.dumps(environment(setup.device), indent=2) + "\n")
    with ExitStack() as stack:
        journal = Journal(console, folder / "train.log")
        stack.callback(journal.close)
        trackers = open_trackers(folder, resumed=resumed)
        for tracker in trackers:
            stack.callback(tracker.close)
        progress = stack.enter_context(RunProgress(journal, steps=setup.steps, done=done))
        try:
            yield Recorder(folder=folder, journal=journal, progress=progress, trackers=trackers)
        except DsctoolError as error:
            journal.note(f"stopped: {error}")
            raise
