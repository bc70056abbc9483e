"""The data of a run or an evaluation: checked by one process, opened by all, and what of it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dsctool.config.schema import Config, DataConfig
from dsctool.data.checks import CheckedSplit, check_for_evaluation, check_for_training
from dsctool.data.classes import lacking, relabelled
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Exclusions, exclusions, warnings_of
from dsctool.data.holdout import held_out
from dsctool.data.layout import SplitFiles, find_split
from dsctool.data.object_sizes import ObjectSizes
from dsctool.data.records import Category
from dsctool.engine.object_sizes import small_objects_note
from dsctool.engine.processes import LONE, Processes
from dsctool.errors import ConfigError, DataError
from dsctool.evaluation.sources import GroundTruth
from dsctool.terms import Progress, Role

_SHOWN = 5


@dataclass(frozen=True)
class EvaluationSet:
    """A split to measure on.

    ground_truth: its annotations without what ``data.on_error: skip`` leaves out, read and encoded once.
    notes: what was left out, for people. annotated: the same images with what losses need, where they are wanted.
    """

    dataset: CocoDataset
    ground_truth: GroundTruth
    notes: tuple[str, ...] = ()
    annotated: CocoDataset | None = None


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
    note: str = ""
    """How one split was made two, for people."""

    def without_readings(self) -> CheckedSets:
        """The same, small enough to send to processes that did not check."""
        val = None if self.val is None else self.val.without_reading()
        return CheckedSets(self.train.without_reading(), val, self.note)


def open_data(config: Config, root: Path, progress: Progress | None = None) -> RunData:
    """Check and open the splits that ``config`` names in the data set ``root``: each annotation file is read once.

    progress: told how many images are checked.
    Raises DataError, in the words of ``dsctool data check``, for faults that ``data.on_error`` does not skip.
    """
    return open_sets(config, check_sets(config, root, progress))


def check_sets(config: Config, root: Path, progress: Progress | None = None) -> CheckedSets:
    """The first half of :func:`open_data`, for one process: it may look at every pixel."""
    masks, data = config.model.cascade.has_masks, _used_by_model(config)
    if data.tiles is not None and config.train.val_losses:
        raise ConfigError("train.val_losses is of whole images: set train.val_losses=false, or data.tiles=null")
    files = find_split(root, data.train, "train")
    if (channels := semantic_channels(config)) is not None:
        files = replace(files, semantic_classes=channels)
    measures = config.train.eval_interval > 0
    val_files = _val_files(root, data) if measures and data.val_share is None else None
    train = check_for_training(files, data, masks=masks, progress=progress)
    if data.val_share is not None:
        parts = divide(train, data.val_share, seed=config.train.seed)
        return parts if measures else replace(parts, val=None)
    if val_files is None:
        return CheckedSets(train, None)
    check = check_for_training if config.train.val_losses else check_for_evaluation
    return CheckedSets(train, check(val_files, data, masks=masks, progress=progress))


def divide(checked: CheckedSplit, share: float, *, seed: int) -> CheckedSets:
    """The training split in two: what is trained on, and the share that is held out, drawn by the seed of the run."""
    reading, left_out = checked.read(), checked.exclude.images
    images = zip(reading.places, reading.images, strict=True)
    usable = [(place, info) for place, info in images if place not in left_out]
    chosen = held_out([info for _, info in usable], share, seed)
    val = {place for number, (place, _) in enumerate(usable) if number in chosen}
    train = {place for place, _ in usable} - val
    trained, measured = (
        replace(checked, exclude=replace(checked.exclude, images=left_out | other)) for other in (val, train)
    )
    kept = f"{len(val)} of {len(usable)} images are held out to measure on, the others are trained on"
    note = f"{checked.files.annotations}: {kept} (data.val_share={share:g})"
    return CheckedSets(trained, measured, note)


def _val_files(root: Path, data: DataConfig) -> SplitFiles:
    try:
        return find_split(root, data.val, "val")
    except DataError as error:
        raise DataError(
            f"{error}. To train without a validation split: data.val_share=0.2 holds out a fifth of the training "
            "images, train.eval_interval=0 never evaluates"
        ) from None


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
    val = None
    if checked.val is not None:
        losses = masks if config.train.val_losses else None
        val = _open_evaluation_set(checked.val, data, losses_with_masks=losses, classes=train_set.categories)
    derived = (f"{train.files.annotations}: {note}" for note in reading.notes)
    small = small_objects_note(train.files.annotations, ObjectSizes.of(reading), config)
    notes = (*([checked.note] if checked.note else []), *_notes(train), *derived, *train_set.notes, *small)
    if val is None or checked.note:  # of one file everything is said
        return RunData(train_set, val, notes)
    lacks = lacking(train_set.categories, val.dataset.categories)
    lacked = [f"{val.dataset.files.annotations}: {lacks}"] if lacks else []
    return RunData(train_set, val, (*notes, *val.notes, *lacked, *val.ground_truth.notes))


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


def open_part(
    files: SplitFiles,
    config: DataConfig,
    role: Role,
    *,
    seed: int,
    masks: bool,
    progress: Progress | None = None,
    processes: Processes = LONE,
) -> EvaluationSet:
    """The part of a training split that a run with ``data.val_share`` and this seed trains or measures on.

    Other arguments and errors as for :func:`open_evaluation_set`.
    """
    assert config.val_share is not None
    check = partial(check_for_evaluation, files, config, masks=masks, progress=progress)
    whole = processes.on_first(check, send=CheckedSplit.without_reading)
    parts = divide(whole, config.val_share, seed=seed)
    checked = parts.train if role == "train" else parts.val
    assert checked is not None
    opened = _open_evaluation_set(checked, config)
    return replace(opened, notes=(parts.note, *opened.notes))


def _open_evaluation_set(
    checked: CheckedSplit,
    config: DataConfig,
    *,
    losses_with_masks: bool | None = None,
    classes: Sequence[Category] | None = None,
) -> EvaluationSet:
    """losses_with_masks: also open what losses need, with or without masks; None: they are not wanted.

    classes: those of the model, whose labels losses are of; None: those of the file."""
    reading = checked.read()
    truth = GroundTruth.of(reading, left_out=checked.exclude.images)
    dataset = CocoDataset.for_evaluation(checked.files, config, exclude=checked.exclude, reading=reading)
    annotated = None
    if losses_with_masks is not None:
        at_once = config.model_copy(update={"tta": None})  # losses are of one view
        annotated = CocoDataset.for_evaluation(
            checked.files,
            at_once,
            masks=losses_with_masks,
            exclude=checked.exclude,
            reading=reading if classes is None else relabelled(reading, classes),
        )
    return EvaluationSet(dataset, truth, _notes(checked), annotated)


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
    lived_with = tuple(warnings_of(checked.faults))
    exclude = exclusions(checked.faults, "skip")
    if exclude == Exclusions():
        return lived_with
    errors = [str(fault) for fault in checked.faults if fault.severity == "error"]
    more = (f"... and {len(errors) - _SHOWN} more: dsctool data check lists them all",) if len(errors) > _SHOWN else ()
    counts = f"images {len(exclude.images)}, annotations {len(exclude.annotations)}"
    lead = f"left out of {checked.files.annotations} (data.on_error=skip): {counts}"
    return (lead, *errors[:_SHOWN], *more, *lived_with)
