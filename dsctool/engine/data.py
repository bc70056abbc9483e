"""The data of a run: checked, opened, and what of it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsctool.config.schema import Config
from dsctool.data.checks import check_for_training
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Exclusions, Fault
from dsctool.data.layout import SplitFiles, find_split
from dsctool.engine.evaluation import EvaluationSet, open_evaluation_set
from dsctool.engine.progress import Counter

_SHOWN = 5


@dataclass(frozen=True)
class RunData:
    """Images to train on, and to evaluate on unless the configuration never does.

    notes: what was left out, for people.
    """

    train_set: CocoDataset
    val: EvaluationSet | None
    notes: tuple[str, ...]


def open_data(config: Config, root: Path, counter: Counter | None = None) -> RunData:
    """Check and open the splits that ``config`` names in the data set ``root``.

    counter: told how many images are checked.
    Raises DataError, in the words of ``dsctool data check``, for faults that ``data.on_error`` does not skip.
    """
    masks = config.model.cascade.mask_head is not None
    files = find_split(root, config.data.train, "train")
    val_files = find_split(root, config.data.val, "val") if config.train.eval_interval > 0 else None
    exclude, faults = check_for_training(files, config.data, masks=masks, progress=counter)
    train_set = CocoDataset.for_training(files, config.data, masks=masks, exclude=exclude)
    notes = _notes(files, exclude, faults)
    if val_files is None:
        return RunData(train_set, None, notes)
    val = open_evaluation_set(val_files, config.data, masks=masks, decode_images=True, progress=counter)
    return RunData(train_set, val, (*notes, val.note) if val.note else notes)


def _notes(files: SplitFiles, exclude: Exclusions, faults: Sequence[Fault]) -> tuple[str, ...]:
    if exclude == Exclusions():
        return ()
    errors = [str(fault) for fault in faults if fault.severity == "error"]
    more = (f"... and {len(errors) - _SHOWN} more: dsctool data check lists them all",) if len(errors) > _SHOWN else ()
    counts = f"images {len(exclude.images)}, annotations {len(exclude.annotations)}"
    return (f"left out of {files.annotations} (data.on_error=skip): {counts}", *errors[:_SHOWN], *more)
