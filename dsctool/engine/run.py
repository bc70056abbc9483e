"""The state of a training run."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from dsctool.engine.meters import Window
from dsctool.engine.preflight import BEST, LAST
from dsctool.engine.progress import Pace
from dsctool.engine.recorder import Recorder
from dsctool.engine.setup import Setup
from dsctool.engine.signals import StopRequest, StopRequestedError
from dsctool.interop.checkpoint import Checkpoint, Metrics, TrainingState


@dataclass
class Position:
    """Where a run stands: optimiser steps done, the current epoch (from 0), and steps of it that are done."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass
class Run:
    """All state of a run that is going on; nothing else holds any.

    best: the best score so far, after the epoch ``best_epoch`` (from 1). stale: evaluations since then. metrics: COCO
    numbers of the last evaluation, which was after ``evaluated`` steps. saved: the step that ``last.pt`` holds.
    """

    setup: Setup
    recorder: Recorder
    stop: StopRequest
    position: Position = field(default_factory=Position)
    best: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    metrics: Metrics | None = None
    evaluated: int | None = None
    saved: int = 0
    pace: Pace = field(default_factory=Pace)
    window: Window = field(default_factory=Window)

    @property
    def epoch_name(self) -> str:
        """Such as ``epoch 3/12``."""
        return f"epoch {min(self.position.epoch + 1, self.setup.epochs)}/{self.setup.epochs}"

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or evaluations have long not got better."""
        patience = self.setup.config.train.early_stop
        return self.position.step >= self.setup.steps or (patience is not None and self.stale >= patience)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Stand where the run stood when ``checkpoint`` was written; model and optimiser are the setup's."""
        state = checkpoint.training
        assert state is not None
        self.position = position_in(self.setup, state)
        self.best, self.best_epoch, self.stale = state.best, state.best_epoch, state.stale
        self.metrics, self.evaluated, self.saved = checkpoint.metrics, state.evaluated, state.step
        ranks = self.setup.processes.ranks
        if len(state.windows) == ranks.world:
            self.window = Window.of(state.windows[ranks.rank], self.setup.device)

    def stopped(self) -> str | None:
        """The signal that has come to any of the processes, if one has; asked by all of them between two steps."""
        own = self.stop.poll()
        number = self.setup.processes.most(0 if own is None else own.value)
        return signal.Signals(number).name if number else None

    def check_stop(self) -> None:
        """Raise StopRequestedError when a signal has come to any of the processes, which need not ask together."""
        processes = self.setup.processes
        if (arrived := self.stop.poll()) is not None:
            processes.call_stop(arrived.name)
            raise StopRequestedError(arrived.name)
        if (name := processes.called_stop()) is not None:
            raise StopRequestedError(name)

    def track(self, kind: str, numbers: dict[str, float]) -> None:
        """Record ``numbers`` at the current position."""
        epoch = self.position.epoch + self.position.batch / len(self.setup.batches)
        self.recorder.track(kind, step=self.position.step, epoch=epoch, numbers=numbers)

    def save_last(self) -> None:
        """Record everything needed to continue from here."""
        at, setup = self.position, self.setup
        windows = setup.processes.gather(self.window.state)
        state = TrainingState(
            step=at.step,
            epoch=at.epoch,
            batch=at.batch,
            optimizer=setup.optimizer.state_dict(),
            best=self.best,
            weights=None if setup.average is None else setup.model.state_dict(),
            images=setup.share.images,
            windows=windows or (),
            evaluated=self.evaluated,
            best_epoch=self.best_epoch,
            stale=self.stale,
            seconds=self.recorder.elapsed,
            loss_scale=None if setup.scale is None else setup.scale.state_dict(),
        )
        self.recorder.save(LAST, self._checkpoint(state))
        self.saved = at.step

    def save_best(self) -> None:
        """Record the weights as they are now, without training state."""
        self.recorder.save(BEST, self._checkpoint(None))

    def save_epoch(self) -> None:
        """Record the weights after an epoch, where those of epochs are kept."""
        self.recorder.save_epoch(self.position.epoch, self._checkpoint(None))

    def _checkpoint(self, state: TrainingState | None) -> Checkpoint:
        return Checkpoint(
            config=self.setup.config,
            categories=self.setup.categories,
            model=self.setup.measured.state_dict(),
            metrics=self.metrics,
            training=state,
        )


def position_in(setup: Setup, state: TrainingState) -> Position:
    """Where a run that was saved in ``state`` stands in the setup that goes on with it.

    With other numbers of images a step, the same share of the epoch is done, as nearly as whole steps allow.
    """
    if state.images is None:
        return Position(state.step, state.epoch, state.batch // setup.config.train.accumulate)
    if state.images == setup.share.images:
        return Position(state.step, state.epoch, state.batch)
    done = state.batch * setup.steps_per_epoch // setup.batches.steps_of(state.images)
    return Position(state.epoch * setup.steps_per_epoch + done, state.epoch, done)
