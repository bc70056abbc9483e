"""Everything that a run writes and shows, in one place."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console

from dsctool.config.dump import config_to_yaml
from dsctool.engine.environment import environment
from dsctool.engine.page import NO_PAGE, Page
from dsctool.engine.progress import Journal, RunProgress
from dsctool.engine.setup import Setup
from dsctool.engine.signals import RunInterruptedError
from dsctool.engine.trackers import Tracker, open_trackers
from dsctool.errors import DsctoolError
from dsctool.evaluation.comparison import Comparison
from dsctool.files import write_text
from dsctool.interop.checkpoint import Checkpoint, TrainingState, save_checkpoint
from dsctool.runs.state import RunState, Word, write_state


class Recorder:
    """The folder of a run and what is on the console; a silent one has neither, and takes everything all the same.

    folder: where checkpoints go; None: nowhere. length: of the run in steps and epochs.
    page: about the run. before: seconds that earlier sittings of it took.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        journal: Journal,
        progress: RunProgress,
        trackers: Sequence[Tracker],
        length: tuple[int, int],
        page: Page = NO_PAGE,
        before: float = 0.0,
    ) -> None:
        self._folder = folder
        self._trackers = trackers
        self._page = page
        self._steps, self._epochs = length
        self._began = time.monotonic() - before
        self.journal = journal
        self.progress = progress

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken so far."""
        return time.monotonic() - self._began

    def track(self, kind: str, *, step: int, epoch: float, numbers: Mapping[str, float]) -> None:
        """Send ``numbers`` to every tracker."""
        for tracker in self._trackers:
            tracker.log(kind, step=step, epoch=epoch, elapsed=self.elapsed, numbers=numbers)

    def draw(self, comparison: Comparison, images: Path, *, step: int) -> None:
        """Draw some of what an evaluation after ``step`` steps found; ``images``: the folder of its images."""
        if self._folder is not None:
            self._page.draw(self._folder, comparison, images, step=step)

    def says(self, word: Word, reason: str = "") -> None:
        """Record what the run is doing, for those who only see its files."""
        if self._folder is not None:
            write_state(self._folder, RunState.here(word, steps=self._steps, epochs=self._epochs, reason=reason))

    def show(self) -> None:
        """Write the page about the run, as it stands."""
        if self._folder is not None:
            self._page.write(self._folder)

    def save(self, name: Literal["last.pt", "best.pt"], checkpoint: Checkpoint) -> None:
        """Write ``checkpoint``, whole or not at all."""
        if self._folder is not None:
            save_checkpoint(self._folder / name, checkpoint)


@contextmanager
def open_recorder(
    setup: Setup, folder: Path, *, resumed: TrainingState | None, console: Console, page: Page = NO_PAGE
) -> Iterator[Recorder]:
    """Records a run in ``folder``, which is made now; the first process does, the others are silent.

    resumed: the state that a resumed run continues from. page: about the run; it is written a last time at its end.
    """
    done, before = (0, 0.0) if resumed is None else (resumed.step, resumed.seconds)
    length = (setup.steps, setup.epochs)
    if setup.ranks.rank > 0:
        journal = Journal(Console(quiet=True))
        progress = RunProgress(journal, steps=setup.steps, done=done)
        yield Recorder(folder=None, journal=journal, progress=progress, trackers=(), length=length)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config_to_yaml(setup.config))
    write_text(folder / "env.json", json.dumps(environment(setup.device), indent=2) + "\n")
    with ExitStack() as stack:
        journal = Journal(console, folder / "train.log")
        stack.callback(journal.close)
        trackers = open_trackers(folder, setup.config, resumed=resumed)
        for tracker in trackers:
            stack.callback(tracker.close)
        progress = stack.enter_context(RunProgress(journal, steps=setup.steps, done=done))
        recorder = Recorder(
            folder=folder, journal=journal, progress=progress, trackers=trackers, length=length,
            page=page, before=before,
        )  # fmt: skip
        recorder.says("running")
        try:
            yield recorder
        except DsctoolError as error:
            journal.note(f"stopped: {error}")
            recorder.says("stopped" if isinstance(error, RunInterruptedError) else "failed", str(error))
            recorder.show()
            raise
        except BaseException as error:
            recorder.says("failed", f"{type(error).__name__}: {error}")
            raise
