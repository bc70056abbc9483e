"""Reasons not to start a run, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from dsctool.config.dump import diff_configs
from dsctool.config.limits import keep_limits
from dsctool.config.schema import Config, DataConfig
from dsctool.data.classes import match_categories
from dsctool.data.coco import CocoDataset
from dsctool.data.records import Category
from dsctool.engine.inference import Model, to_results
from dsctool.engine.sets import EvaluationSet, RunData, semantic_channels
from dsctool.engine.tiles import found_in_set
from dsctool.errors import CheckpointError, ConfigError, DamagedError, DataError
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint
from dsctool.terms import Progress

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
"""The checkpoints in the folder of a run: to continue, the one before it, and to use."""
TRIED = 2
"""Validation images that a new run detects in before its first step."""

CHANGEABLE = (
    "description",
    "data.val",
    "data.workers",
    "panoptic",
    "train.epochs",
    "train.steps",
    "train.early_stop",
    "train.val_losses",
    "train.wandb",
    "train.precision",  # weights and optimiser are float32 in all of them
    "train.max_skipped",
    "train.checkpoint_activations",
    "train.masks_at_once",
    "train.eval_interval",
    "train.checkpoint_interval",
    "train.log_interval",
    "train.timeout",
)
"""Keys, and beginnings of keys, that may differ from the stored configuration when a run is resumed."""


def starting_point(config: Config, output: Path, *, resume: bool) -> tuple[Checkpoint | None, list[str]]:
    """The state that the run in ``output`` continues from, or None for a new one, and what to say about it.

    Raises ConfigError or CheckpointError when it would spoil what is there, or would not continue it.
    """
    if not resume:
        refuse_existing(output)
        return None, []
    checkpoint, notes = resumable(output)
    refuse_changes(config, checkpoint, output)
    return checkpoint, notes


def refuse_existing(output: Path) -> None:
    """Raise ConfigError when ``output`` is anything but an absent or empty folder."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise ConfigError(
            f"{output}: exists already. Give --output another folder, or --resume to continue the run in it."
        )


def resumable(output: Path) -> tuple[Checkpoint, list[str]]:
    """The state that the run in ``output`` continues from; CheckpointError where there is none.

    It is that of ``last.pt``; where this is damaged, that of the one before, and a note that says so.
    """
    path, before = output / LAST, output / PREVIOUS
    if not path.exists():
        raise CheckpointError(f"{path}: no such file, so there is nothing to resume. Start without --resume.")
    notes = []
    try:
        checkpoint = load_checkpoint(path)
    except DamagedError as error:
        if not before.exists():
            raise
        checkpoint = load_checkpoint(before)
        step = 0 if checkpoint.training is None else checkpoint.training.step
        notes = [f"{error} The run goes on from {before}, the checkpoint before it, at step {step}."]
    if checkpoint.training is None:
        raise CheckpointError(
            f"{path}: holds weights only, no training state. Start a new run with train.weights={path}."
        )
    return checkpoint, notes


def refuse_changes(config: Config, checkpoint: Checkpoint, output: Path) -> None:
    """Raise ConfigError when ``config`` would continue another experiment than the one in ``output``.

    Limits that are ``auto`` are what they were in the run.
    """
    changed = [
        f"  {change.key}: {change.left!r} in the run, {change.right!r} now"
        for change in diff_configs(checkpoint.config, keep_limits(config, checkpoint.config))
        if not any(change.key == key or change.key.startswith(f"{key}.") for key in CHANGEABLE)
    ]
    if changed:
        raise ConfigError(
            "\n".join([f"{output}: --resume continues the same experiment, but the configuration differs:", *changed])
            + f"\nResume with {output / 'config.yaml'}, or start a new run with train.weights={output / 'last.pt'}."
        )


def refuse_frozen_noise(config: Config) -> None:
    """Raise ConfigError when layers are frozen that nothing gives weights to."""
    backbone = config.model.backbone
    if backbone.frozen_stages >= 0 and backbone.weights is None and config.train.weights is None:
        raise ConfigError(
            f"model.backbone.frozen_stages is {backbone.frozen_stages}, but neither model.backbone.weights nor "
            "train.weights names any weights: the frozen layers would stay random. Set one of the two, or "
            "model.backbone.frozen_stages=-1 to train everything."
        )


def check_classes(config: Config, data: RunData, provenance: Mapping[str, str]) -> None:
    """Raise ConfigError or DataError when configuration, training and validation data disagree on the classes.

    provenance: who set each configuration value.
    """
    train_set, wanted = data.train_set, config.model.num_classes
    found = len(train_set.categories)
    if wanted is not None and wanted != found:
        source = provenance.get("model.num_classes", "the configuration")
        raise ConfigError(
            f"model.num_classes is {wanted} ({source}), but {train_set.files.annotations} has {found} categories. "
            "Set model.num_classes=null to follow the data, or use other data."
        )
    if data.val is not None:
        val = data.val.dataset
        match_categories(train_set.categories, val.categories, val.files.annotations, val.met)
    _check_semantic_classes(config, found, provenance)


def _check_semantic_classes(config: Config, found: int, provenance: Mapping[str, str]) -> None:
    """Raise ConfigError when maps drawn from the instances hold more classes than the semantic branch has channels."""
    channels = semantic_channels(config)
    if config.data.semantic == "instances" and channels is not None and channels < found + 1:
        key = "model.cascade.semantic.num_classes"
        raise ConfigError(
            f"{key} is {channels} ({provenance.get(key, 'the configuration')}), but data.semantic=instances draws "
            f"{found} classes and background. Set {key}=null to follow the data."
        )


def check_same_classes(train_set: CocoDataset, checkpoint: Checkpoint) -> None:
    """Raise DataError when a resumed run would see other classes than before."""
    if train_set.categories != checkpoint.categories:
        raise DataError(
            f"{train_set.files.annotations}: its categories are not those that the run was started with. "
            "Resume with the same data, or start a new run."
        )


def try_detection(
    model: Model, data: EvaluationSet, config: DataConfig, *, device: torch.device, progress: Progress | None = None
) -> None:
    """Detect in the first validation images: what cannot work, or has no room, fails now and not after an epoch.

    model: on ``device``; it is left as it came, and so are the generators of random numbers.
    """
    here = config.model_copy(update={"workers": 0})  # processes would load more than these images
    with closing(found_in_set(model, data.dataset, here, device=device)) as stream:
        for number, (info, found) in enumerate(islice(stream, TRIED), start=1):
            highest = max(found.labels.tolist(), default=-1)
            to_results(found, info.image_id, [Category(label, "") for label in range(highest + 1)])
            if progress is not None:
                progress("validation images tried", number, min(TRIED, len(data.dataset)))
