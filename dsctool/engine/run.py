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

    best: the best score so far. metrics: COCO numbers of the last evaluation. saved: the step that ``last.pt`` holds.
    """

    setup: Setup
    recorder: Recorder
    stop: StopRequest
    position: Position = field(default_factory=Position)
    best: float | None = None
    metrics: Metrics | None = None
    saved: int = 0
    pace: Pace = field(default_factory=Pace)
    window: Window = field(default_factory=Window)

    @property
    def epoch_name(self) -> str:
        """Such as ``epoch 3/12``."""
        return f"epoch {self.position.epoch + 1}/{self.setup.config.train.epochs}"

    def resume(self, checkpoint: Checkpoint) -> None:
        """Stand where the run stood when ``checkpoint`` was written; model and optimiser are the setup's."""
        state = checkpoint.training
        assert state is not None
        self.position = Position(state.step, state.epoch, state.batch)
        self.best, self.metrics, self.saved = state.best, checkpoint.metrics, state.step

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
            loss_scale=None if setup.scale is None else setup.scale.state_dict(),
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
