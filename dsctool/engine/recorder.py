"""Everything that a run writes and shows, in one place."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from dsctool.config.dump import config_to_yaml
from dsctool.engine.environment import environment
from dsctool.engine.page import NO_PAGE, Page
from dsctool.engine.preflight import BEST, LAST, PREVIOUS
from dsctool.engine.progress import Journal, RunProgress
from dsctool.engine.setup import Setup
from dsctool.engine.signals import RunInterruptedError
from dsctool.engine.trackers import Tracker, open_trackers
from dsctool.errors import ConfigError, DiskFullError, DsctoolError
from dsctool.evaluation.comparison import Comparison
from dsctool.files import lock, remove_leftovers, write_text
from dsctool.interop.checkpoint import Checkpoint, TrainingState, save_checkpoint
from dsctool.runs.state import RunState, Word, write_state

_TEXTS = ("config.yaml", "env.json", "metrics.jsonl", "state.json", "report.html")


class Recorder:
    """The folder of a run and what is on the console; a silent one has neither, and takes everything all the same.

    folder: where checkpoints go; None: nowhere. length: of the run in steps and epochs. page: about the run.
    before: seconds that earlier sittings of it took. keep: epochs whose weights stay, the last ones.
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
        keep: int = 0,
    ) -> None:
        self._folder = folder
        self._keep = keep
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

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write ``checkpoint``, whole or not at all; the last one but one stays as well."""
        if self._folder is not None:
            previous = self._folder / PREVIOUS if name == LAST else None
            save_checkpoint(self._folder / name, checkpoint, previous=previous)

    def save_epoch(self, epoch: int, checkpoint: Checkpoint) -> None:
        """Write the weights after the 1-based ``epoch``, and remove those of epochs that are not kept any more."""
        if self._folder is None or self._keep == 0:
            return
        self.save(f"epoch_{epoch:03d}.pt", checkpoint)
        for path in self._folder.glob("epoch_*.pt"):
            number = path.stem.removeprefix("epoch_")
            if number.isdigit() and int(number) <= epoch - self._keep:
                path.unlink()


@contextmanager
def open_recorder(
    setup: Setup,
    folder: Path,
    *,
    resumed: TrainingState | None,
    console: Console,
    page: Page = NO_PAGE,
    keep: int = 0,
) -> Iterator[Recorder]:
    """Records a run in ``folder``, which is made now; the first process does, the others are silent.

    resumed: the state that a resumed run continues from. page: about the run; it is written a last time at its end.
    keep: epochs whose weights stay.

    Raises:
        ConfigError: another command trains in the folder.
    """
    done, before = (0, 0.0) if resumed is None else (resumed.step, resumed.seconds)
    length = (setup.steps, setup.epochs)
    if not setup.processes.first:
        journal = Journal(Console(quiet=True))
        progress = RunProgress(journal, steps=setup.steps, done=done)
        yield Recorder(folder=None, journal=journal, progress=progress, trackers=(), length=length)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        remove_leftovers(folder, (LAST, PREVIOUS, BEST, "epoch_*.pt", *_TEXTS))
        remove_leftovers(folder / "pictures", ("*",))
        write_text(folder / "config.yaml", config_to_yaml(setup.config))
        write_text(folder / "env.json", json.dumps(environment(setup.device), indent=2) + "\n")
        journal = Journal(console, folder / "train.log")
        stack.callback(journal.close)
        trackers = open_trackers(folder, setup.config, resumed=resumed)
        for tracker in trackers:
            stack.callback(tracker.close)
        progress = stack.enter_context(RunProgress(journal, steps=setup.steps, done=done))
        recorder = Recorder(
            folder=folder, journal=journal, progress=progress, trackers=trackers, length=length,
            page=page, before=before, keep=keep,
        )  # fmt: skip
        recorder.says("running")
        try:
            yield recorder
        except DsctoolError as error:
            with suppress(OSError, DiskFullError):  # where the disk is full, that is the error to be told
                journal.note(f"stopped: {error}")
                recorder.says("stopped" if isinstance(error, RunInterruptedError) else "failed", str(error))
                recorder.show()
            raise
        except BaseException as error:
            with suppress(OSError, DiskFullError):
                recorder.says("failed", f"{type(error).__name__}: {error}")
            raise


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other commands from training in the folder."""
    with (folder / "train.log").open("ab") as file:
        if not lock(file):
            raise ConfigError(f"{folder}: another command trains in it. Let it end, or name another --output.")
        yield
