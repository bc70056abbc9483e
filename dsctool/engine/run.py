"""The state of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsctool.engine.meters import Window
from dsctool.engine.progress import Pace
from dsctool.engine.recorder import Recorder
from dsctool.engine.setup import Setup
from dsctool.engine.signals import StopRequest
from dsctool.interop.checkpoint import Checkpoint, Metrics, TrainingState


@dataclass
class Position:
    """Where a run stands: optimiser steps done, the current epoch (from 0), and batches of it that are done."""

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
        self.position = Position(state.step, state.epoch, state.batch)
        self.best, self.best_epoch, self.stale = state.best, state.best_epoch, state.stale
        self.metrics, self.evaluated, self.saved = checkpoint.metrics, state.evaluated, state.step

    def track(self, kind: str, numbers: dict[str, float]) -> None:
        """Record ``numbers`` at the current position."""
        epoch = self.position.epoch + self.position.batch / len(self.setup.batches)
        self.recorder.track(kind, step=self.position.step, epoch=epoch, numbers=numbers)

    def save_last(self) -> None:
        """Record everything needed to continue from here."""
        at, setup = self.position, self.setup
        state = TrainingState(
            step=at.step,
            epoch=at.epoch,
            batch=at.batch,
            optimizer=setup.optimizer.state_dict(),
            best=self.best,
            weights=None if setup.average is None else setup.model.state_dict(),
            evaluated=self.evaluated,
            best_epoch=self.best_epoch,
            stale=self.stale,
            seconds=self.recorder.elapsed,
        )
        self.recorder.save("last.pt", self._checkpoint(state))
        self.saved = at.step

    def save_best(self) -> None:
        """Record the weights as they are now, without training state."""
        self.recorder.save("best.pt", self._checkpoint(None))

    def _checkpoint(self, state: TrainingState | None) -> Checkpoint:
        return Checkpoint(
            config=self.setup.config,
            categories=self.setup.categories,
            model=self.setup.measured.state_dict(),
            metrics=self.metrics,
            training=state,
        )
