"""Checkpoints: one file with the weights and everything needed to use or to continue them.

A checkpoint is a ``torch.save`` file of plain containers and tensors, so that reading it never runs code::

    format      "dsctool-checkpoint"
    version     1
    config      the resolved configuration as plain mappings (normalisation included), with its schema version
    categories  [{"id": 1, "name": "person"}, ...]: the class with label i is the i-th
    model       state dict of the detector
    metrics     the COCO numbers of the last evaluation: {"bbox": {"AP": ...}, "segm": {...}}, or null
    training    what --resume needs (see TrainingState), or null
    operating_point  which scores count (see OperatingPoint); only where ``dsctool eval --store`` has added it, and no
                matter to releases that do not know it
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from dsctool.config.limits import open_limits
from dsctool.config.loading import config_from_mapping, override_config
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.errors import CheckpointError, ConfigError, DamagedError
from dsctool.files import keep_as, whole_file
from dsctool.interop.conversion import Conversion, convert
from dsctool.interop.export_file import SUFFIXES
from dsctool.interop.layouts import unify
from dsctool.interop.loading import read_tensors, state_dict_in
from dsctool.interop.published import rename

if TYPE_CHECKING:
    from dsctool.models.detector import Detector

FORMAT = "dsctool-checkpoint"
VERSION = 1

Metrics = Mapping[str, Mapping[str, float] | None]
"""COCO numbers: ``{"bbox": {"AP": ...}, "segm": {...} or None}``."""


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands, for an exact continuation.

    There are no states of random generators in it: the order of the images, their augmentation and the samples of
    the losses are functions of the seed and of the position.

    step: optimiser steps done. The learning rate and the samples of the losses are functions of it.
    epoch: 0-based epoch of the next batch.
    batch: optimiser steps of that epoch that are done.
    optimizer: the optimiser's state dict.
    best: the best score so far, None before the first evaluation.
    weights: the detector's, where those of the checkpoint are their moving average (``train.ema``); else None.
    images: of an optimiser step; None in files of releases where ``batch`` counted forward passes.
    windows: what the next line of numbers has so far, of every process.
    evaluated: the step of the last evaluation that is done, None before the first one.
    best_epoch: the epoch, from 1, after which the best score was. stale: evaluations since then.
    seconds: that the run has taken so far.
    loss_scale: how float16's losses are scaled (``train.precision``), as plain numbers; else None.
    """

    step: int
    epoch: int
    batch: int
    optimizer: dict[str, Any]
    best: float | None = None
    weights: Mapping[str, Tensor] | None = None
    images: int | None = None
    windows: Sequence[Mapping[str, Any]] = ()
    evaluated: int | None = None
    best_epoch: int | None = None
    stale: int = 0
    seconds: float = 0.0
    loss_scale: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """From which score on results count.

    thresholds: by label, each from 0 to 1. best: what they are best by, ``f1`` or ``count``. kind, iou: what a match
    was. images: how many they were found on. overrides: ``KEY=VALUE``, what the configuration was changed by then.
    split: ``val``, or ``train`` for images that were learnt from.
    """

    thresholds: tuple[float, ...]
    best: str
    kind: str
    iou: float
    images: int
    overrides: tuple[str, ...] = ()
    split: str = "val"


@dataclass(frozen=True)
class Checkpoint:
    """A detector's weights with its configuration, its classes and, for a run, its training state.

    config: the resolved configuration.
    categories: the classes; a label is an index into this list.
    model: the detector's state dict.
    metrics: COCO numbers of the last evaluation, or None.
    training: state for ``--resume``, or None where there is nothing to continue.
    operating_point: from which score on results count, or None where nobody has measured it.
    """

    config: Config
    categories: list[Category]
    model: Mapping[str, Tensor]
    metrics: Metrics | None = None
    training: TrainingState | None = None
    operating_point: OperatingPoint | None = None


def save_checkpoint(path: Path | str, checkpoint: Checkpoint, *, previous: Path | None = None) -> None:
    """Write ``checkpoint`` to ``path``: whole, or not at all when anything fails.

    previous: the name that what was at ``path`` has from then on.
    """
    path = Path(path)
    training = checkpoint.training
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "config": checkpoint.config.model_dump(mode="json"),
        "categories": [{"id": category.id, "name": category.name} for category in checkpoint.categories],
        "model": dict(checkpoint.model),
        "metrics": _plain(checkpoint.metrics),
        "training": None if training is None else {f.name: getattr(training, f.name) for f in fields(training)},
    }
    if checkpoint.operating_point is not None:
        payload["operating_point"] = asdict(checkpoint.operating_point)
    with whole_file(path, _bytes_in(payload)) as file:
        torch.save(payload, file)
        if previous is not None and path.exists():
            keep_as(path, previous)


def store_operating_point(path: Path, point: OperatingPoint) -> None:
    """Write ``point`` into the checkpoint at ``path``, in place of an earlier one: whole, or not at all.

    All else that is in the file stays as it is, also what this release would write otherwise.

    Raises CheckpointError as :func:`load_checkpoint`, for a file of another program, and for other classes.
    """
    classes = len(load_checkpoint(path).categories)
    if len(point.thresholds) != classes:
        raise CheckpointError(f"{path}: has {classes} classes, there are thresholds for {len(point.thresholds)}.")
    payload = read_tensors(path)
    if not is_own(payload):
        raise CheckpointError(
            f"{path}: no dsctool checkpoint, so nothing can be stored in it: dsctool convert makes one of it."
        )
    with whole_file(path, _bytes_in(payload)) as file:
        torch.save({**payload, "operating_point": asdict(point)}, file)


def _bytes_in(content: object) -> int:
    """Of the tensors in plain containers."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    return sum(map(_bytes_in, parts))


def load_checkpoint(path: Path | str, *, config: str | None = None) -> Checkpoint:
    """Read a checkpoint, with every tensor on the CPU; published ones too.

    config: of a published one; None where the weights say of which model they are.

    Raises CheckpointError when the file is missing, damaged, from a newer release, or neither a checkpoint of this
    project nor one that :func:`dsctool.interop.conversion.convert` takes.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise CheckpointError(
            f"{path}: is an exported file, which dsctool predict, eval and benchmark run; this takes the checkpoint "
            "that it was made of."
        )
    try:
        payload = read_tensors(path)
    except CheckpointError:
        if path.is_file():
            _refuse_changed_bits(path)  # which can make it look like anything
        raise
    if not is_own(payload):
        return as_checkpoint(convert(payload, path, config=config))
    _refuse_changed_bits(path)
    if config is not None:
        raise CheckpointError(f"{path}: is a dsctool checkpoint, which has a configuration of its own.")
    if news := _news(payload):
        raise CheckpointError(f"{path}: written by a newer dsctool: {news}. Update dsctool to read it.")
    try:
        return _unpack(payload)
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: its configuration is not valid here, so another release of dsctool wrote it: update dsctool, "
            f"or use that release.\n{error}"
        ) from error
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{path}: damaged dsctool checkpoint ({error}). Use another copy of it.") from error


def _refuse_changed_bits(path: Path) -> None:
    """PyTorch reads numbers as they are; the sums that it wrote beside them say whether they are what was written."""
    if not zipfile.is_zipfile(path):  # written anew by others, in PyTorch's format of old
        return
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, zlib.error):  # over names and lengths in it
        changed = "its table of contents"
    if changed is not None:
        raise DamagedError(f"{path}: damaged: {changed} is not what was written. Use another copy of it.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file by this project's names: a checkpoint has them, those of other files are translated.

    Raises CheckpointError when the file is missing or holds no state dict.
    """
    content = read_tensors(path)
    state = state_dict_in(content, path)
    return state if is_own(content) else {rename(name): value for name, value in unify(state).state.items()}


def as_checkpoint(conversion: Conversion) -> Checkpoint:
    """What was converted, without numbers and without anything to continue."""
    return Checkpoint(conversion.config, conversion.categories, conversion.state)


def load_model(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: torch.device | str = "cpu",
    config: str | None = None,
) -> Detector:
    """The detector of a checkpoint in eval mode.

    config: as in :func:`load_checkpoint`. overrides: ``key=value`` changes of its configuration, such as
    ``postprocess.nms=mask``. ``data.semantic`` stays as it is: it says which branch there are weights for.

    Raises CheckpointError as :func:`load_checkpoint`, and when the weights do not fit the configuration; ConfigError
    for overrides that are none.
    """
    checkpoint = load_checkpoint(path, config=config)
    if overrides:
        changed = override_config(checkpoint.config, overrides, source=str(path))
        _refuse_open_limits(changed, checkpoint.config)
        data = changed.data.model_copy(update={"semantic": checkpoint.config.data.semantic})
        checkpoint = replace(checkpoint, config=changed.model_copy(update={"data": data}))
    return detector_from(checkpoint, source=path).to(device)


def _refuse_open_limits(config: Config, stored: Config) -> None:
    for key in open_limits(config):
        if key not in open_limits(stored):
            raise ConfigError(f"{key}=auto follows the training data, which are not here: give a number")


def detector_from(checkpoint: Checkpoint, *, source: Path | str) -> Detector:
    """The detector of a loaded checkpoint, on the CPU in eval mode; ``source`` names it in errors."""
    from dsctool.models.build import build_detector  # reading a checkpoint needs no model code

    model = build_detector(checkpoint.config, num_classes=len(checkpoint.categories))
    try:
        model.load_state_dict(dict(checkpoint.model))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{source}: the weights do not fit its own configuration. {reason[:500]}") from error
    model.categories = checkpoint.categories
    return model.eval()


def is_own(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it was read from a file of this project."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _news(payload: Mapping[str, Any]) -> str | None:
    """What only a newer release can have written, in words."""
    version, training = payload.get("version"), payload.get("training")
    if isinstance(version, int) and version > VERSION:
        return f"checkpoint version {version}, this one reads version {VERSION}"
    known = {field.name for field in fields(TrainingState)}
    unknown = [str(key) for key in training if key not in known] if isinstance(training, Mapping) else []
    return f"this one does not know {', '.join(unknown)} in its training state" if unknown else None


def _unpack(payload: Mapping[str, Any]) -> Checkpoint:
    if payload["version"] != VERSION:
        raise TypeError(f"version {payload['version']!r}")
    training, config, model = payload["training"], payload["config"], payload["model"]
    categories = [Category(**category) for category in payload["categories"]]
    if not isinstance(config, Mapping):
        raise TypeError("config is not a mapping")
    if not isinstance(model, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in model.items()
    ):
        raise TypeError("model is not a mapping from names to tensors")
    if not all(isinstance(c.id, int) and isinstance(c.name, str) for c in categories):
        raise TypeError("a category without a whole number as id or text as name")
    return Checkpoint(
        config=config_from_mapping(config, source="checkpoint"),
        categories=categories,
        model=model,
        metrics=payload["metrics"],
        training=None if training is None else TrainingState(**training),
        operating_point=_operating_point(payload.get("operating_point"), len(categories)),
    )


def _operating_point(stored: Mapping[str, Any] | None, classes: int) -> OperatingPoint | None:
    if stored is None:
        return None
    known = [each.name for each in fields(OperatingPoint)]  # newer ones may say more
    point = OperatingPoint(**{name: stored[name] for name in known if name in stored})
    thresholds = tuple(point.thresholds)
    if len(thresholds) != classes or not all(isinstance(each, float) and 0 <= each <= 1 for each in thresholds):
        raise TypeError(f"operating point for {classes} classes: {thresholds}")
    return replace(point, thresholds=thresholds, overrides=tuple(point.overrides))


def _plain(metrics: Metrics | None) -> Metrics | None:
    if metrics is None:
        return None
    return {
        kind: None if numbers is None else {k: float(v) for k, v in numbers.items()}
        for kind, numbers in metrics.items()
    }
