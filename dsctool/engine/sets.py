"""The data of a run or an evaluation: checked by one process, opened by all, and what of it is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dsctool.config.schema import Config, DataConfig
from dsctool.data.checks import CheckedSplit, check_for_evaluation, check_for_training
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Exclusions
from dsctool.data.layout import SplitFiles, find_split
from dsctool.engine.processes import LONE, Processes
from dsctool.evaluation.sources import GroundTruth
from dsctool.terms import Progress

_SHOWN = 5


@dataclass(frozen=True)
class EvaluationSet:
    """A split to measure on.

    ground_truth: its annotations without what ``data.on_error: skip`` leaves out, read and encoded once.
    notes: what was left out, for people.
    """

    dataset: CocoDataset
    ground_truth: GroundTruth
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunData:
    """Images to train on, and to evaluate on unless the configuration never does.

    notes: what was left out, for people.
    """

    train_set: CocoDataset
    val: EvaluationSet | None
    notes: tuple[str, ...]

    @property
    def datasets(self) -> tuple[CocoDataset, ...]:
        """The images of all its splits."""
        return (self.train_set,) if self.val is None else (self.train_set, self.val.dataset)


@dataclass(frozen=True)
class CheckedSets:
    """The splits of a run, ready to be opened."""

    train: CheckedSplit
    val: CheckedSplit | None

    def without_readings(self) -> CheckedSets:
        """The same, small enough to send to processes that did not check."""
        return CheckedSets(self.train.without_reading(), None if self.val is None else self.val.without_reading())


def open_data(config: Config, root: Path, progress: Progress | None = None) -> RunData:
    """Check and open the splits that ``config`` names in the data set ``root``: each annotation file is read once.

    progress: told how many images are checked.
    Raises DataError, in the words of ``dsctool data check``, for faults that ``data.on_error`` does not skip.
    """
    return open_sets(config, check_sets(config, root, progress))


def check_sets(config: Config, root: Path, progress: Progress | None = None) -> CheckedSets:
    """The first half of :func:`open_data`, for one process: it may look at every pixel."""
    masks, data = config.model.cascade.has_masks, _used_by_model(config)
    files = find_split(root, data.train, "train")
    if (channels := semantic_channels(config)) is not None:
        files = replace(files, semantic_classes=channels)
    val_files = find_split(root, data.val, "val") if config.train.eval_interval > 0 else None
    train = check_for_training(files, data, masks=masks, progress=progress)
    if val_files is None:
        return CheckedSets(train, None)
    return CheckedSets(train, check_for_evaluation(val_files, data, masks=masks, progress=progress))


def open_sets(config: Config, checked: CheckedSets) -> RunData:
    """The second half of :func:`open_data`, for every process: annotations are read where none came along."""
    masks, data, train = config.model.cascade.has_masks, _used_by_model(config), checked.train
    reading = train.read()
    train_set = CocoDataset.for_training(
        train.files,
        data,
        masks=masks,
        exclude=train.exclude,
        reading=reading,
        geometry=config.model.geometry,
    )
    val = None if checked.val is None else _open_evaluation_set(checked.val, data)
    derived = (f"{train.files.annotations}: {note}" for note in reading.notes)
    notes = (*_notes(train), *derived, *train_set.notes)
    return RunData(train_set, val, (*notes, *((*val.notes, *val.ground_truth.notes) if val is not None else ())))


def open_evaluation_set(
    files: SplitFiles,
    config: DataConfig,
    *,
    masks: bool,
    progress: Progress | None = None,
    processes: Processes = LONE,
) -> EvaluationSet:
    """Open a split, its annotations and images checked as for training; semantic maps are not needed.

    masks: also check the segmentations, where the file has any.
    progress: told how many images are checked. processes: the first one checks, all open.

    Raises:
        DataError: there are faults and ``data.on_error`` is ``fail``; the message has one line per fault.
    """
    check = partial(check_for_evaluation, files, config, masks=masks, progress=progress)
    checked = processes.on_first(check, send=CheckedSplit.without_reading)
    return _open_evaluation_set(checked, config)


def _open_evaluation_set(checked: CheckedSplit, config: DataConfig) -> EvaluationSet:
    reading = checked.read()
    truth = GroundTruth.of(reading, left_out=checked.exclude.images)
    dataset = CocoDataset.for_evaluation(checked.files, config, exclude=checked.exclude, reading=reading)
    return EvaluationSet(dataset, truth, _notes(checked))


def _used_by_model(config: Config) -> DataConfig:
    """``config.data``, without semantic maps where the model has no branch that learns them."""
    if config.model.cascade.semantic_branch is None:
        return config.data.model_copy(update={"semantic": "none"})
    return config.data


def semantic_channels(config: Config) -> int | None:
    """Classes of the semantic branch where the configuration says how many; None where the data do, or no branch is."""
    branch = config.model.cascade.semantic_branch
    return None if branch is None else branch.num_classes


def _notes(checked: CheckedSplit) -> tuple[str, ...]:
    exclude = checked.exclude
    if exclude == Exclusions():
        return ()
    errors = [str(fault) for fault in checked.faults if fault.severity == "error"]
    more = (f"... and {len(errors) - _SHOWN} more: dsctool data check lists them all",) if len(errors) > _SHOWN else ()
    counts = f"images {len(exclude.images)}, annotations {len(exclude.annotations)}"
    lead = f"left out of {checked.files.annotations} (data.on_error=skip): {counts}"
    return (lead, *errors[:_SHOWN], *more)
