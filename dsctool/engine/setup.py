"""Everything a training run needs, checked and built before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dsctool.config.limits import PROPOSALS, RESULTS, fit_limits, keep_limits
from dsctool.config.model_schema import Block
from dsctool.config.schema import Config, DataConfig
from dsctool.data.loader import TrainLoader
from dsctool.data.records import Category
from dsctool.engine.averaging import moving_average
from dsctool.engine.environment import describe
from dsctool.engine.limits import crowding_notes
from dsctool.engine.optim import Schedule, build_optimizer, build_schedule
from dsctool.engine.panoptic import with_stuff_names
from dsctool.engine.precision import LossScale, require
from dsctool.engine.preflight import check_classes, check_same_classes, refuse_frozen_noise, try_detection
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.sets import CheckedSets, RunData, check_sets, open_sets
from dsctool.engine.share import Share, share_of
from dsctool.engine.trackers import refuse_missing_trackers
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
    model: on ``device``, in train mode. network: the same as a step calls it, which exchanges gradients where several
        processes train.
    average: the moving average of its weights, where the configuration wants one.
    batches: of each step, for this process. Close it when the run ends.
    share: of a step's images, for each process.
    processes: which train together.
    notes: what the user should read before the run starts.
    scale: of the losses, where the run computes in float16.
    """

    config: Config
    device: torch.device
    model: Detector
    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    data: RunData
    batches: TrainLoader
    share: Share
    processes: Processes
    notes: tuple[str, ...]
    average: AveragedModel | None = None
    scale: LossScale | None = None

    @property
    def measured(self) -> Detector:
        """The detector that evaluations look at, and that ``best.pt`` holds."""
        if self.average is None:
            return self.model
        return cast("Detector", self.average.module)

    @property
    def categories(self) -> list[Category]:
        """The classes; a label is an index into this list."""
        return self.data.train_set.categories

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch; the last one of each orientation may have fewer images."""
        return len(self.batches)

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole run."""
        train = self.config.train
        return self.steps_per_epoch * train.epochs if train.steps is None else train.steps

    @property
    def epochs(self) -> int:
        """Epochs in the whole run; the last one may end early."""
        return ceil(self.steps / self.steps_per_epoch)


def prepare(
    config: Config,
    *,
    data: Path,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    provenance: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    processes: Processes = LONE,
    build: Build = build_detector,
) -> Setup:
    """Check configuration and data, build the model with its first weights, and try a new one on validation images.

    checkpoint: the state that a resumed run continues from.
    provenance: who set each configuration value, for messages.
    progress: told how many images are checked and tried.
    processes: which train together. build: makes the model.
    Raises ConfigError, DataError or CheckpointError.
    """
    refuse_frozen_noise(config)
    require(config.train.precision, device)
    if processes.first:
        refuse_missing_trackers(config)
    checked = processes.on_first(partial(check_sets, config, data, progress), send=CheckedSets.without_readings)
    with processes.together():
        opened = open_sets(config, checked)
        check_classes(config, opened, provenance or {})
        if checkpoint is not None:
            check_same_classes(opened.train_set, checkpoint)
            config = keep_limits(config, checkpoint.config)
        config = fit_limits(config, instances=opened.train_set.most_instances)
        config, unnamed = with_stuff_names(config, opened.train_set.files.semantic_maps, opened.train_set.categories)
        torch.manual_seed(config.train.seed)
        model = build(config, num_classes=len(opened.train_set.categories))
        if checkpoint is None:
            notes = _load_first_weights(model, config)
        else:
            notes = []
            model.load_state_dict(dict(_trained(checkpoint)))
        model.to(device).train()
        if checkpoint is None and opened.val is not None and processes.first:
            try_detection(model, opened.val, config.data, device=device, progress=progress)
    network = processes.wrapped(model)
    optimizer = build_optimizer(model, config.optim)
    if checkpoint is not None and checkpoint.training is not None:
        optimizer.load_state_dict(checkpoint.training.optimizer)
    average = _average(model, config, checkpoint)
    if config.train.sync_batch_norm:
        processes.share_statistics(model)  # after the average was copied: groups of processes cannot be
    share, notes_on_share = share_of(config, checkpoint, processes.ranks.world)
    batches = TrainLoader(
        opened.train_set,
        config.data,
        batch_size=share.batch_size,
        accumulate=share.accumulate,
        seed=config.train.seed,
        epochs=config.train.steps or config.train.epochs,  # at most: whoever counts steps closes it
        ranks=processes.ranks,
        pin_memory=device.type == "cuda",
        timeout=config.train.timeout,
    )
    schedule = build_schedule(
        config.optim,
        effective_batch=share.images,
        steps_per_epoch=len(batches),
        epochs=config.train.epochs,
        steps=config.train.steps,
    )
    setup = Setup(
        config=config,
        device=device,
        model=model,
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        data=opened,
        batches=batches,
        share=share,
        processes=processes,
        notes=(
            *opened.notes,
            *unnamed,
            *notes,
            *notes_on_share,
            *crowding_notes(config, opened.datasets, training=True),
        ),
        average=average,
        scale=_scale(config, device, checkpoint),
    )
    return replace(setup, notes=(*setup.notes, *_warmup_notes(setup)))


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
    taken, frozen = config.model.backbone.in_channels, config.model.backbone.frozen_stages
    if lines and taken not in (1, 3) and frozen >= 0:
        lines.append(
            f"model.backbone.frozen_stages={frozen} keeps the first layer, which was made for other images, as it is: "
            f"-1 lets it learn the {taken} channels"
        )
    return lines


def _account(source: str, report: LoadReport) -> list[str]:
    counts, *misfits = report.lines()
    return [f"{source}: {counts}", *(f"  {line}" for line in misfits)]


def summary(setup: Setup) -> dict[str, str]:
    """What a run is about to do, by name, for people to check before it takes hours."""
    config, schedule, share = setup.config, setup.schedule, setup.share
    train, optim, batch = config.train, config.optim, setup.share.images
    processes = f" x {share.world} processes" if share.world > 1 else ""
    images = len(setup.data.train_set)
    instances = setup.data.train_set.num_instances
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in setup.model.parameters()]
    trainable = sum(size for size, trains in sizes if trains)
    scaling = f" = {optim.lr:g} x {batch} / {optim.reference_batch}" if optim.scale_lr else ""
    return {
        "data": f"{images} images, {instances} instances, {len(setup.categories)} classes"
        f" ({setup.data.train_set.files.annotations})",
        **_feeding(setup),
        "model": f"{sum(size for size, _ in sizes):,} parameters, {trainable:,} of them trainable",
        "device": describe(setup.device),
        "effective batch": f"{batch} images = batch_size {share.batch_size} x accumulate {share.accumulate}{processes}",
        "limits": f"{RESULTS.of(config)} results of {PROPOSALS.of(config)} proposals an image; at most "
        f"{setup.data.train_set.most_instances} instances in a training image"
        f"{' before others are pasted' if config.data.copy_paste else ''}",
        "learning rate": f"{schedule.base_lr:g}{scaling}, {_shape(setup)}",
        **_groups(setup.optimizer),
        **({} if train.precision == "float32" else {"precision": f"{train.precision}, evaluations in float32"}),
        **({} if train.ema is None else {"measured": f"the moving average of the weights, decay {train.ema:g}"}),
        "length": _length(setup),
    }


def _feeding(setup: Setup) -> dict[str, str]:
    """How images are chosen and changed, where that is not as published."""
    data, repeats = setup.config.data, setup.data.train_set.repeats
    lines = {}
    if repeats is not None:
        reasons = [f"repeat_factor {data.repeat_factor:g}"] if data.repeat_factor else []
        reasons += [data.train.weights] if data.train.weights else []
        reasons += [f"tiles of {data.tiles.size} pixels"] if data.tiles is not None else []
        low, high = f"{repeats.min():.3g}", f"{repeats.max():.3g}"
        times = low if low == high else f"{low} to {high}"
        what = "images" if data.tiles is None else "windows"
        lines["sampling"] = f"{repeats.sum():.0f} {what} an epoch, {times} of each image ({', '.join(reasons)})"
    if changes := augmentations(data):
        lines["augmentation"] = changes
    return lines


def augmentations(data: DataConfig) -> str:
    """What training does to images besides resizing and flipping, in one line; empty where it does nothing."""
    blocks = {"jitter": data.jitter, "crop": data.crop, "color": data.color, "copy_paste": data.copy_paste}
    parts = [] if data.tiles is None else [f"windows of {data.tiles.size} pixels"]
    return ", ".join([*parts, *(f"{name} ({_values(block)})" for name, block in blocks.items() if block is not None)])


def _values(block: Block) -> str:
    values = block.model_dump()
    return ", ".join(f"{name} {_range(value)}" for name, value in values.items())


def _range(value: float | tuple[float, float]) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, tuple) else f"{value:g}"


def _groups(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Learning rates and weight decays that differ from parameter to parameter."""
    groups = optimizer.param_groups
    sizes: dict[str, dict[float, int]] = {"lr_factor": {}, "weight_decay": {}}
    for group in groups:
        for key, counts in sizes.items():
            value = group.get(key, 1.0)
            counts[value] = counts.get(value, 0) + sum(parameter.numel() for parameter in group["params"])
    names = {"lr_factor": "rate factors", "weight_decay": "weight decay"}
    return {
        names[key]: ", ".join(f"{value:.3g} for {count:,} parameters" for value, count in sorted(counts.items()))
        for key, counts in sizes.items()
        if len(counts) > 1
    }


def _length(setup: Setup) -> str:
    """Of the run, in words."""
    train, each = setup.config.train, setup.steps_per_epoch
    if train.steps is None:
        return f"{setup.steps} steps = {train.epochs} epochs x {each}"
    return f"{setup.steps} steps (train.steps) in {setup.epochs} epochs, of {each} steps each"


def _warmup_notes(setup: Setup) -> list[str]:
    """What to set where the learning rate never gets to where it should be."""
    warmup, steps = setup.schedule.warmup_steps, setup.steps
    if warmup < steps:
        return []
    reached = f"{setup.schedule.at(steps - 1):.3g} of {setup.schedule.base_lr:.3g}"
    shorter = f"optim.warmup_steps={max(1, steps // 10)}"
    longer = f"train.epochs={2 * ceil(warmup / setup.steps_per_epoch)}"
    return [
        f"the warm-up takes {warmup} steps and the run {steps}: the learning rate ends at {reached}. "
        f"Set {shorter} (a tenth of the run), or train longer ({longer})"
    ]


def _shape(setup: Setup) -> str:
    """The schedule in words."""
    schedule = setup.schedule
    parts = [f"warm-up over {schedule.warmup_steps} steps"] if schedule.warmup_steps else ["no warm-up"]
    if schedule.warmup_steps >= setup.steps:
        parts[0] += " (longer than the run)"
    reached = [str(step) for step in schedule.milestones if step < setup.steps]
    if schedule.steps is not None:
        parts.append("then in a straight line to 0" if schedule.shape == "linear" else "then in half a cosine to 0")
    if reached:
        parts.append(f"x {schedule.gamma:g} at step {', '.join(reached)}")
    return ", ".join(parts)
