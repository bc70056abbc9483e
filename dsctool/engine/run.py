"""The state of a training run and the folder it is recorded in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from dsctool.config.dump import config_to_yaml
from dsctool.engine.environment import environment
from dsctool.engine.meters import Window
from dsctool.engine.progress import Journal, Pace, RunProgress
from dsctool.engine.setup import Setup
from dsctool.engine.signals import StopRequest
from dsctool.engine.trackers import Tracker, open_trackers
from dsctool.errors import DsctoolError
from dsctool.files import write_text
from dsctool.interop.checkpoint import Checkpoint, Metrics, TrainingState, save_checkpoint


@dataclass
class Position:
    """Where a run stands: optimiser steps done, the current epoch (from 0), and batches of it that are done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass
class Run:
    """All state of a run that is going on; nothing else holds any.

    best: the best score so far. metrics: COCO numbers of the last evaluation.
    """

    setup: Setup
    folder: Path
    stop: StopRequest
    journal: Journal
    trackers: list[Tracker]
    progress: RunProgress
    position: Position
    best: float | None = None
    metrics: Metrics | None = None
    pace: Pace = field(default_factory=Pace)
    window: Window = field(default_factory=Window)

    @property
    def epoch_name(self) -> str:
        """Such as ``epoch 3/12``."""
        return f"epoch {self.position.epoch + 1}/{self.setup.config.train.epochs}"

    def track(self, kind: str, numbers: dict[str, float]) -> None:
        """Send ``numbers`` to every tracker."""
        epoch = self.position.epoch + self.position.batch / self.setup.batches
        for tracker in self.trackers:
            tracker.log(kind, step=self.position.step, epoch=epoch, numbers=numbers)

    def save_last(self) -> None:
        """Write ``last.pt``: everything needed to continue from here."""
        at = self.position
        state = TrainingState(
            step=at.step, epoch=at.epoch, batch=at.batch, optimizer=self.setup.optimizer.state_dict(), best=self.best
        )
        save_checkpoint(self.folder / "last.pt", self._checkpoint(state))

    def save_best(self) -> None:
        """Write ``best.pt``: the weights as they are now, without training state."""
        save_checkpoint(self.folder / "best.pt", self._checkpoint(None))

    def _checkpoint(self, state: TrainingState | None) -> Checkpoint:
        return Checkpoint(
            config=self.setup.config,
            categories=self.setup.categories,
            model=self.setup.model.state_dict(),
            metrics=self.metrics,
            training=state,
        )


@contextmanager
def open_run(
    setup: Setup, folder: Path, *, checkpoint: Checkpoint | None, stop: StopRequest, console: Console
) -> Iterator[Run]:
    """A run recorded in ``folder``, which is made now; ``checkpoint`` is the state it continues from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config_to_yaml(setup.config))
    write_text(folder / "env.json", json.dumps(environment(setup.device), indent=2) + "\n")
    state = None if checkpoint is None else checkpoint.training
    position = Position() if state is None else Position(state.step, state.epoch, state.batch)
    with ExitStack() as stack:
        journal = Journal(console, folder / "train.log")
        stack.callback(journal.close)
        trackers = open_trackers(folder, resumed=state)
        for tracker in trackers:
            stack.callback(tracker.close)
        progress = stack.enter_context(RunProgress(journal, steps=setup.steps, done=position.step))
        run = Run(setup, folder, stop, journal, trackers, progress, position)
        if checkpoint is not None and state is not None:
            run.best, run.metrics = state.best, checkpoint.metrics
        try:
            yield run
        except DsctoolError as error:
            journal.note(f"stopped: {error}")
            raise
