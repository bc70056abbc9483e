"""The data of a run or an evaluation: checked, opened, and what of it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsctool.config.schema import CascadeRcnnConfig, Config, DataConfig
from dsctool.data.checks import check_for_training, check_split, decodes_first
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Exclusions, Fault, exclusions
from dsctool.data.layout import SplitFiles, find_split
from dsctool.data.records import AnnotationFile, read_annotation_file
from dsctool.structures import Progress

_SHOWN = 5


@dataclass(frozen=True)
class EvaluationSet:
    """A split to measure on.

    ground_truth: its COCO file, or what is in it without what ``data.on_error: skip`` leaves out.
    notes: what was left out, for people.
    """

    dataset: CocoDataset
    ground_truth: Path | dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunData:
    """Images to train on, and to evaluate on unless the configuration never does.

    notes: what was left out, for people.
    """

    train_set: CocoDataset
    val: EvaluationSet | None
    notes: tuple[str, ...]


def open_data(config: Config, root: Path, progress: Progress | None = None) -> RunData:
    """Check and open the splits that ``config`` names in the data set ``root``.

    progress: told how many images are checked.
    Raises DataError, in the words of ``dsctool data check``, for faults that ``data.on_error`` does not skip.
    """
    masks = config.model.cascade.mask_head is not None
    data = _used_by_model(config)
    files = find_split(root, data.train, "train")
    if (channels := semantic_channels(config)) is not None:
        files = replace(files, semantic_classes=channels)
    val_files = find_split(root, data.val, "val") if config.train.eval_interval > 0 else None
    exclude, faults = check_for_training(files, data, masks=masks, progress=progress)
    train_set = CocoDataset.for_training(files, data, masks=masks, exclude=exclude)
    notes = _notes(files, exclude, faults)
    if val_files is None:
        return RunData(train_set, None, notes)
    val = open_evaluation_set(val_files, data, masks=masks, progress=progress)
    return RunData(train_set, val, (*notes, *val.notes))


def open_evaluation_set(
    files: SplitFiles, config: DataConfig, *, masks: bool, progress: Progress | None = None
) -> EvaluationSet:
    """Open a split, its annotations and images checked as for training; semantic maps are not needed.

    masks: also check the segmentations, where the file has any.
    progress: told how many images are checked.

    Raises:
        DataError: there are faults and ``data.on_error`` is ``fail``; the message has one line per fault.
    """
    content = read_annotation_file(files.annotations)
    with_masks = masks and any(isinstance(entry, dict) and entry.get("segmentation") for entry in content.annotations)
    faults = check_split(
        replace(files, semantic_maps=None),
        decode_images=decodes_first(content, config),
        masks=with_masks,
        progress=progress,
    )
    exclude = exclusions(faults, config.on_error)
    dataset = CocoDataset.for_evaluation(files, config, exclude=exclude)
    if exclude == Exclusions():
        return EvaluationSet(dataset, files.annotations)
    return EvaluationSet(dataset, _remaining(content, exclude), _notes(files, exclude, faults))


def _used_by_model(config: Config) -> DataConfig:
    """``config.data``, without semantic maps where the model has no branch that learns them."""
    if isinstance(config.model.cascade, CascadeRcnnConfig):
        return config.data.model_copy(update={"semantic": "none"})
    return config.data


def semantic_channels(config: Config) -> int | None:
    """Classes of the semantic branch where the configuration says how many; None where the data do, or no branch is."""
    cascade = config.model.cascade
    return None if isinstance(cascade, CascadeRcnnConfig) else cascade.semantic.num_classes


def _notes(files: SplitFiles, exclude: Exclusions, faults: Sequence[Fault]) -> tuple[str, ...]:
    if exclude == Exclusions():
        return ()
    errors = [str(fault) for fault in faults if fault.severity == "error"]
    more = (f"... and {len(errors) - _SHOWN} more: dsctool data check lists them all",) if len(errors) > _SHOWN else ()
    counts = f"images {len(exclude.images)}, annotations {len(exclude.annotations)}"
    return (f"left out of {files.annotations} (data.on_error=skip): {counts}", *errors[:_SHOWN], *more)


def _remaining(content: AnnotationFile, exclude: Exclusions) -> dict[str, Any]:
    return {
        "images": [entry for index, entry in enumerate(content.images) if index not in exclude.images],
        "annotations": [entry for index, entry in enumerate(content.annotations) if index not in exclude.annotations],
        "categories": content.categories,
    }
