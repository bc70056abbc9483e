"""Checkpoints: one file with the weights and everything needed to use or to continue them.

A checkpoint is a ``torch.save`` file of plain containers and tensors, so that reading it never runs code::

    format      "dsctool-checkpoint"
    version     1
    config      the resolved configuration as plain mappings (normalisation included), with its schema version
    categories  [{"id": 1, "name": "person"}, ...]: the class with label i is the i-th
    model       state dict of the detector
    metrics     the COCO numbers of the last evaluation: {"bbox": {"AP": ...}, "segm": {...}}, or null
    training    what --resume needs (see TrainingState), or null
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dsctool.config.loading import config_from_mapping, override_config
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.errors import CheckpointError, ConfigError
from dsctool.files import whole_file
from dsctool.interop.loading import read_tensors

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
    batch: batches of that epoch that are done.
    optimizer: the optimiser's state dict.
    best: the best score so far, None before the first evaluation.
    """

    step: int
    epoch: int
    batch: int
    optimizer: dict[str, Any]
    best: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A detector's weights with its configuration, its classes and, for a run, its training state.

    config: the resolved configuration.
    categories: the classes; a label is an index into this list.
    model: the detector's state dict.
    metrics: COCO numbers of the last evaluation, or None.
    training: state for ``--resume``, or None where there is nothing to continue.
    """

    config: Config
    categories: list[Category]
    model: Mapping[str, Tensor]
    metrics: Metrics | None = None
    training: TrainingState | None = None


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``: whole, or not at all when anything fails."""
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
    with whole_file(Path(path)) as file:
        torch.save(payload, file)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint, with every tensor on the CPU.

    Raises CheckpointError when the file is missing, damaged, or not a checkpoint of this project.
    """
    path = Path(path)
    payload = read_tensors(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a dsctool checkpoint. {_FOREIGN}")
    if payload.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {payload.get('version')!r}, this dsctool reads version {VERSION}. "
            "Use the dsctool release that wrote it, or a newer one."
        )
    try:
        return _unpack(payload)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its configuration is not valid here.\n{error}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged dsctool checkpoint ({error}). Use another copy of it.") from error


def load_model(path: Path | str, *, overrides: Sequence[str] = (), device: torch.device | str = "cpu") -> Detector:
    """The detector of a checkpoint in eval mode, with ``.config`` and ``.categories`` set.

    overrides: ``key=value`` changes of its configuration, such as ``postprocess.nms=mask``. ``data.semantic`` stays as
    it is: it says which branch there are weights for.

    Raises CheckpointError as :func:`load_checkpoint`, and when the weights do not fit the configuration; ConfigError
    for overrides that are none.
    """
    checkpoint = load_checkpoint(path)
    if overrides:
        config = override_config(checkpoint.config, overrides, source=str(path))
        data = config.data.model_copy(update={"semantic": checkpoint.config.data.semantic})
        checkpoint = replace(checkpoint, config=config.model_copy(update={"data": data}))
    return detector_from(checkpoint, source=path).to(device)


def detector_from(checkpoint: Checkpoint, *, source: Path | str) -> Detector:
    """The detector of a loaded checkpoint, on the CPU in eval mode; ``source`` names it in errors."""
    from dsctool.models.build import build_detector  # reading a checkpoint needs no model code

    model = build_detector(checkpoint.config, num_classes=len(checkpoint.categories))
    try:
        model.load_state_dict(dict(checkpoint.model))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{source}: the weights do not fit its own configuration. {reason[:500]}") from error
    model.config = checkpoint.config
    model.categories = checkpoint.categories
    return model.eval()


_FOREIGN = "Give a best.pt or last.pt that `dsctool train` wrote; published .pth files name their weights otherwise."


def _unpack(payload: Mapping[str, Any]) -> Checkpoint:
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
    )


def _plain(metrics: Metrics | None) -> Metrics | None:
    if metrics is None:
        return None
    return {
        kind: None if numbers is None else {k: float(v) for k, v in numbers.items()}
        for kind, numbers in metrics.items()
    }
