"""From which score on results count: what ``--score-threshold`` says, and what ``dsctool eval`` makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from dsctool.cli.count_tables import COUNT_FILES, POINT_FILES, counts_json, point_json, show_counts, show_point
from dsctool.cli.options import Split
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.records import Category
    from dsctool.evaluation.comparison import Comparison
    from dsctool.evaluation.counts import CountStudy
    from dsctool.evaluation.operating_point import OperatingStudy
    from dsctool.interop.checkpoint import Checkpoint

Threshold = float | Literal["auto"]


class BestBy(StrEnum):
    """What an operating point is best by."""

    F1 = "f1"
    COUNT = "count"


def parse_threshold(text: str) -> Threshold:
    """``auto``, or a number from 0 to 1."""
    if text == "auto":
        return "auto"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise typer.BadParameter(f"{text!r}: give a number from 0 to 1, or auto", param_hint="--score-threshold")
    return number


class Stored(NamedTuple):
    """What a checkpoint says. thresholds: by category id. note: for people, where they may not fit what is run now."""

    thresholds: dict[int, float]
    note: str | None


def stored_thresholds(
    checkpoint: Path, overrides: Sequence[str], categories: Sequence[Category] | None = None
) -> Stored:
    """overrides: what its configuration is changed by now. categories: a data set's, which may call the same names by
    other ids; without them the ids are the checkpoint's.

    Raises DsctoolError where it has no thresholds.
    """
    from dsctool.data.classes import match_categories

    loaded = _with_point(checkpoint)
    assert loaded.operating_point is not None
    own = loaded.categories if categories is None else match_categories(loaded.categories, categories, checkpoint)
    point = loaded.operating_point
    then, now = ([word for word in words if word.startswith(_SCORING)] for words in (point.overrides, overrides))
    notes = [f"{checkpoint}: its {_LEARNT}"] if point.split == Split.TRAIN else []
    if sorted(then) != sorted(now):
        notes.append(
            f"{checkpoint}: its thresholds were found with {' '.join(then) or 'nothing changed'}, now it runs with "
            f"{' '.join(now) or 'nothing changed'}: scores may mean something else"
        )
    pairs = zip(own, point.thresholds, strict=True)
    return Stored({category.id: each for category, each in pairs if category is not None}, "\n".join(notes) or None)


_LEARNT = (
    "thresholds were found on the training images (--split train), which a model scores higher than images that it has "
    "not learnt from: on others they may keep too little. --split val finds them on others"
)


_SCORING = ("model.", "postprocess.", "data.tta", "data.test_resize", "data.tiles", "data.channels", "data.image_range")
"""What scores depend on, of the keys that may be changed."""


def _with_point(checkpoint: Path) -> Checkpoint:
    from dsctool.interop.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    if loaded.operating_point is None:
        raise DsctoolError(
            f"{checkpoint}: has no thresholds of its own for --score-threshold auto. "
            f"dsctool eval {checkpoint} --data DIR --operating-point --store finds them on the validation split and "
            "stores them; or give a number."
        )
    return loaded


@dataclass(frozen=True)
class Scores:
    """What ``dsctool eval`` is asked of scores. model: the checkpoint that runs, None for files and published weights.

    split: of the data set, None for files. output: folder for tables and plots. overrides: what the model's
    configuration is changed by.
    """

    threshold: Threshold
    counts: bool
    operating_point: bool
    best_by: BestBy
    store: bool
    output: Path | None
    model: Path | None
    overrides: Sequence[str]
    split: Split | None

    @classmethod
    def asked(
        cls, threshold: str, *, counts: bool, operating_point: bool, best_by: BestBy, store: bool, output: Path | None,
        errors: Path | None, model: Path | None, overrides: Sequence[str], split: Split | None,
    ) -> Scores:  # fmt: skip
        """Refuses what makes no sense together, before anything runs."""
        parsed = parse_threshold(threshold)
        if not operating_point and (store or best_by is not BestBy.F1):
            raise typer.BadParameter("--store and --best-by are for --operating-point")
        if parsed == "auto":
            if errors is not None or not counts:
                raise typer.BadParameter(
                    "auto is for --counts alone: --errors needs one number", param_hint="--score-threshold"
                )
            if model is None:
                raise typer.BadParameter(
                    "auto takes the thresholds of a CHECKPOINT that dsctool train wrote: give a number",
                    param_hint="--score-threshold",
                )
            _with_point(model)
        if store:
            if model is None:
                raise typer.BadParameter("--store writes into a CHECKPOINT that is run on --data DIR")
            _refuse_foreign(model)
        return cls(parsed, counts, operating_point, best_by, store, output, model, overrides, split)

    @property
    def number(self) -> float:
        """For analyses that know one threshold alone, and are not asked for where there are several."""
        return 0.0 if self.threshold == "auto" else self.threshold

    @property
    def files(self) -> list[tuple[Path, Sequence[str]]]:
        """The names of the files that are written, by folder."""
        if self.output is None:
            return []
        return [(self.output, (*(COUNT_FILES if self.counts else ()), *(POINT_FILES if self.operating_point else ())))]

    def study(self, compared: Comparison) -> Scored:
        """What is asked for, of results beside their truth."""
        from dsctool.evaluation.counts import study_counts
        from dsctool.evaluation.operating_point import study_operating_point

        categories = compared.source.categories
        counted = None
        if self.counts:
            if self.threshold == "auto":
                assert self.model is not None
                by_id, note = stored_thresholds(self.model, self.overrides, categories)
                if note is not None:
                    typer.echo(note, err=True)
            else:
                by_id = dict.fromkeys((category.id for category in categories), self.threshold)
            counted = study_counts(compared, [by_id[category.id] for category in categories])
        point = study_operating_point(compared, self.best_by.value) if self.operating_point else None
        return Scored(self, counted, point, categories)


@dataclass(frozen=True)
class Scored:
    """What was found. categories: of the ground truth."""

    asked: Scores
    counts: CountStudy | None
    point: OperatingStudy | None
    categories: Sequence[Category]

    def as_json(self) -> dict[str, object]:
        """Both studies, by name."""
        content: dict[str, object] = {}
        if self.counts is not None:
            content["counts"] = counts_json(self.counts)
        if self.point is not None:
            split = None if self.asked.split is None else self.asked.split.value
            content["operating_point"] = {"split": split, **point_json(self.point)}
        return content

    def show(self) -> None:
        """Tables on the terminal; files, and the checkpoint, where they are asked for."""
        if self.counts is not None:
            typer.echo()
            show_counts(self.counts, self.asked.output)
        if self.point is not None:
            typer.echo()
            show_point(self.point, self.asked.output)
            if self.asked.split is Split.TRAIN:
                typer.echo(f"these {_LEARNT}")
            if self.asked.store:
                _store(self.asked, self.point, self.categories)


def _store(asked: Scores, study: OperatingStudy, categories: Sequence[Category]) -> None:
    from dsctool.data.classes import match_categories
    from dsctool.interop.checkpoint import OperatingPoint, load_checkpoint, store_operating_point

    assert asked.model is not None
    assert asked.split is not None
    spare = None if study.overall.at is None else study.overall.at.threshold
    if study.thresholds is None or spare is None:
        raise DsctoolError(f"{asked.model}: nothing is stored: no threshold is better than another")
    by_id = {category.id: each for category, each in zip(categories, study.thresholds, strict=True)}
    labels = match_categories(load_checkpoint(asked.model).categories, categories, asked.model)
    point = OperatingPoint(
        thresholds=tuple(spare if category is None else by_id[category.id] for category in labels),
        best=asked.best_by.value,
        kind=study.kind,
        iou=0.5,
        images=study.images,
        overrides=tuple(asked.overrides),
        split=asked.split.value,
    )
    store_operating_point(asked.model, point)
    typer.echo(f"{asked.model}: thresholds stored, for --score-threshold auto")


def _refuse_foreign(checkpoint: Path) -> None:
    """Before a model runs for hours: nothing can be stored in files of other programs."""
    from dsctool.interop.checkpoint import is_own
    from dsctool.interop.loading import read_tensors

    if not is_own(read_tensors(checkpoint)):
        raise DsctoolError(f"{checkpoint}: no dsctool checkpoint, so nothing can be stored in it: see dsctool convert")
