"""Everything a training run needs, checked and built before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dsctool.config.limits import PROPOSALS, RESULTS, fit_limits, keep_limits
from dsctool.config.schema import Config
from dsctool.data.loader import TrainLoader
from dsctool.data.records import Category
from dsctool.data.samplers import ALONE, Ranks
from dsctool.engine.averaging import moving_average
from dsctool.engine.environment import describe
from dsctool.engine.limits import crowding_notes
from dsctool.engine.optim import Schedule, build_optimizer, build_schedule
from dsctool.engine.precision import LossScale, require
from dsctool.engine.preflight import check_classes, check_same_classes, refuse_frozen_noise, try_detection
from dsctool.engine.sets import RunData, open_data
from dsctool.interop.checkpoint import Checkpoint, read_weights
from dsctool.interop.loading import LoadReport, load_backbone_weights, load_weights
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.terms import Progress


class Build(Protocol):
    """Makes the detector of a configuration, such as :func:`dsctool.models.build.build_detector`."""

    def __call__(self, config: Config, *, num_classes: int) -> Detector:
        """A detector with fresh weights."""


@dataclass(frozen=True)
class Setup:
    """A run that could start.

    config: with numbers for limits.
    model: on ``device``, in train mode.
    average: the moving average of its weights, where the configuration wants one.
    batches: of each process: its forward passes. Close it when the run ends.
    ranks: which of the processes of the run this one is.
    notes: what the user should read before the run starts.
    scale: of the losses, where the run computes in float16.
    """

    config: Config
    device: torch.device
    model: Detector
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    data: RunData
    batches: TrainLoader
    ranks: Ranks
    notes: tuple[str, ...]
    average: AveragedModel | None = None
    scale: LossScale | None = None

    @property
    def measured(self) -> Detector:
        """The detector that evaluations look at, and that ``best.pt`` holds."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, Detector)
        return self.average.module

    @property
    def categories(self) -> list[Category]:
        """The classes; a label is an index into this list."""
        return self.data.train_set.categories

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch; the last one may average fewer batches."""
        return ceil(len(self.batches) / self.config.train.accumulate)

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.steps_per_epoch * self.config.train.epochs


def prepare(
    config: Config,
    *,
    data: Path,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    provenance: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    build: Build = build_detector,
) -> Setup:
    """Check configuration and data, build the model with its first weights, and try a new one on validation images.

    checkpoint: the state that a resumed run continues from.
    provenance: who set each configuration value, for messages.
    progress: told how many images are checked and tried.
    ranks: which of the processes of the run this one is. build: makes the model.
    Raises ConfigError, DataError or CheckpointError.
    """
    refuse_frozen_noise(config)
    require(config.train.precision, device)
    opened = open_data(config, data, progress)
    check_classes(config, opened, provenance or {})
    if checkpoint is not None:
        check_same_classes(opened.train_set, checkpoint)
        config = keep_limits(config, checkpoint.config)
    config = fit_limits(config, instances=opened.train_set.most_instances)
    torch.manual_seed(config.train.seed)
    model = build(config, num_classes=len(opened.train_set.categories))
    if checkpoint is None:
        notes = _load_first_weights(model, config)
    else:
        notes = []
        model.load_state_dict(dict(_trained(checkpoint)))
    model.to(device).train()
    if checkpoint is None and opened.val is not None:
        try_detection(model, opened.val, config.data, device=device, progress=progress)
    optimizer = build_optimizer(model, config.optim)
    if checkpoint is not None and checkpoint.training is not None:
        optimizer.load_state_dict(checkpoint.training.optimizer)
    average = _average(model, config, checkpoint)
    batches = TrainLoader(
        opened.train_set,
        config.data,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        epochs=config.train.epochs,
        ranks=ranks,
        pin_memory=device.type == "cuda",
    )
    schedule = build_schedule(
        config.optim,
        effective_batch=effective_batch(config, ranks),
        steps_per_epoch=ceil(len(batches) / config.train.accumulate),
        epochs=config.train.epochs,
    )
    return Setup(
        config=config,
        device=device,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        data=opened,
        batches=batches,
        ranks=ranks,
        notes=(*opened.notes, *notes, *crowding_notes(config, opened.datasets, training=True)),
        average=average,
        scale=_scale(config, device, checkpoint),
    )


def effective_batch(config: Config, ranks: Ranks) -> int:
    """Images per optimiser step."""
    return config.train.batch_size * config.train.accumulate * ranks.world


def _trained(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """The weights that a run goes on with."""
    state = checkpoint.training
    return checkpoint.model if state is None or state.weights is None else state.weights


def _average(model: Detector, config: Config, checkpoint: Checkpoint | None) -> AveragedModel | None:
    if config.train.ema is None:
        return None
    state = None if checkpoint is None else checkpoint.training
    average = moving_average(model, config.train.ema, updates=0 if state is None else state.step)
    if checkpoint is not None:
        average.module.load_state_dict(dict(checkpoint.model))
    return average


def _scale(config: Config, device: torch.device, checkpoint: Checkpoint | None) -> LossScale | None:
    if config.train.precision != "float16":
        return None
    scale = LossScale(device, max_skipped=config.train.max_skipped)
    state = None if checkpoint is None else checkpoint.training
    if state is not None and state.loss_scale is not None:  # a run that was float32 until now has none
        scale.load_state_dict(state.loss_scale)
    return scale


def _load_first_weights(model: Detector, config: Config) -> list[str]:
    train, backbone, lines = config.train, config.model.backbone.weights, []
    if backbone is not None and (train.weights is None or train.partial_weights):
        for part in model.backbones:
            lines += _account(f"model.backbone.weights={backbone}", load_backbone_weights(part, backbone))
    if train.weights is not None:
        source = f"train.weights={train.weights}"
        state = read_weights(Path(train.weights))
        lines += _account(source, load_weights(model, state, source=source, allow_partial=train.partial_weights))
    return lines


def _account(source: str, report: LoadReport) -> list[str]:
    counts, *misfits = report.lines()
    return [f"{source}: {counts}", *(f"  {line}" for line in misfits)]


def summary(setup: Setup) -> dict[str, str]:
    """What a run is about to do, by name, for people to check before it takes hours."""
    config, schedule = setup.config, setup.schedule
    train, optim, batch = config.train, config.optim, effective_batch(config, setup.ranks)
    processes = f" x {setup.ranks.world} processes" if setup.ranks.world > 1 else ""
    images = len(setup.data.train_set)
    instances = setup.data.train_set.num_instances
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in setup.model.parameters()]
    trainable = sum(size for size, trains in sizes if trains)
    scaling = f" = {optim.lr:g} x {batch} / {optim.reference_batch}" if optim.scale_lr else ""
    return {
        "data": f"{images} images, {instances} instances, {len(setup.categories)} classes"
        f" ({setup.data.train_set.files.annotations})",
        "model": f"{sum(size for size, _ in sizes):,} parameters, {trainable:,} of them trainable",
        "device": describe(setup.device),
        "effective batch": f"{batch} images = batch_size {train.batch_size} x accumulate {train.accumulate}{processes}",
        "limits": f"{RESULTS.of(config)} results of {PROPOSALS.of(config)} proposals an image; at most "
        f"{setup.data.train_set.most_instances} instances in a training image",
        "learning rate": f"{schedule.base_lr:g}{scaling}, {_shape(setup)}",
        **({} if train.precision == "float32" else {"precision": f"{train.precision}, evaluations in float32"}),
        **({} if train.ema is None else {"measured": f"the moving average of the weights, decay {train.ema:g}"}),
        "length": f"{setup.steps} steps = {train.epochs} epochs x {setup.steps_per_epoch}",
    }


def _shape(setup: Setup) -> str:
    """The schedule in words."""
    schedule = setup.schedule
    parts = [f"warm-up over {schedule.warmup_steps} steps"] if schedule.warmup_steps else ["no warm-up"]
    if schedule.warmup_steps >= setup.steps:
        parts[0] += " (longer than the run)"
    reached = [str(step) for step in schedule.milestones if step < setup.steps]
    if schedule.steps is not None:
        parts.append("then in a straight line to 0")
    if reached:
        parts.append(f"x {schedule.gamma:g} at step {', '.join(reached)}")
    return ", ".join(parts)
