"""What two annotations of the same images differ in, instance by instance.

Instances are paired one to one by IoU of masks (of boxes where one side has no masks), classes by name, images by file
name. A pair is unchanged, or moved where its IoU is below a limit, or relabelled where its class differs; crowd regions
are a class of their own. What has no partner was removed, or added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypedDict

import numpy as np

from dsctool.data.records import ImageInfo
from dsctool.errors import DataError
from dsctool.evaluation.instance_matching import InstanceColumns, match_instances
from dsctool.evaluation.sources import GroundTruth
from dsctool.rle import Ints

Kind = Literal["added", "removed", "moved", "relabelled"]
KINDS: tuple[Kind, ...] = ("added", "removed", "moved", "relabelled")
PAIRED = 0.5
"""IoU that a pair must have."""
UNCHANGED = 0.95
"""IoU below which a pair is said to have moved: polygons of the same thing, drawn twice, differ by a few pixels."""


class Change(TypedDict):
    """One instance that differs. image: file name. before, after: ids. from, to: classes. iou: of a pair, else null."""

    image: str
    change: Kind
    before: int | None
    after: int | None
    class_before: str | None
    class_after: str | None
    iou: float | None


@dataclass(frozen=True)
class Changes:
    """From one annotation to another. images: file names only one of them has, and how many both have.

    classes: names that only one has. unchanged: pairs. changes: image by image, in the order of the first.
    """

    images_added: list[str]
    images_removed: list[str]
    images: int
    classes_added: list[str]
    classes_removed: list[str]
    unchanged: int
    changes: list[Change]

    def counts(self) -> dict[tuple[str, Kind], int]:
        """By class (of a relabelled instance the one that it had) and kind."""
        return dict(
            Counter(
                (change["class_before"] or change["class_after"] or "", change["change"]) for change in self.changes
            )
        )


def compare_annotations(before: GroundTruth, after: GroundTruth, *, unchanged: float = UNCHANGED) -> Changes:
    """What became of ``before``. unchanged: IoU from which a pair is the same.

    Raises:
        DataError: an image has another size, or several have one name.
    """
    ours, theirs = _by_name(before), _by_name(after)
    ours, theirs = _as_named_alike(ours, theirs)
    common = [name for name in ours if name in theirs]
    for name in common:
        sizes = before.images[ours[name]].size, after.images[theirs[name]].size
        if sizes[0] != sizes[1] and all(map(all, sizes)):
            shown = " and ".join(f"{width} x {height}" for height, width in sizes)
            raise DataError(f"{after.name}: image {name}: the sizes differ, {shown} in {before.name} and here")
    names = list(dict.fromkeys(category.name for truth in (before, after) for category in truth.categories))
    sides = [
        _columns(truth, [rows[name] for name in common], names) for truth, rows in ((before, ours), (after, theirs))
    ]
    listed = list(_changes((before, after), sides, common, names, unchanged))
    paired = sum(change["before"] is not None and change["after"] is not None for change in listed)
    added = sum(change["change"] == "added" for change in listed)
    kinds = [{category.name for category in truth.categories} for truth in (before, after)]
    return Changes(
        images_added=[name for name in theirs if name not in ours],
        images_removed=[name for name in ours if name not in theirs],
        images=len(common),
        classes_added=sorted(kinds[1] - kinds[0]),
        classes_removed=sorted(kinds[0] - kinds[1]),
        unchanged=len(sides[1][1]) - added - paired,
        changes=listed,
    )


def _changes(
    truths: tuple[GroundTruth, GroundTruth],
    sides: Sequence[tuple[InstanceColumns, Ints]],
    images: Sequence[str],
    names: Sequence[str],
    unchanged: float,
) -> Iterator[Change]:
    (ours, our_rows), (theirs, their_rows) = sides
    matches = match_instances(ours, theirs, at_least=PAIRED)
    pairs: list[tuple[int | None, int | None, float | None]] = list(
        zip(matches.ours.tolist(), matches.theirs.tolist(), matches.iou.tolist(), strict=True)
    )
    pairs += [(row, None, None) for row in np.delete(np.arange(len(ours)), matches.ours).tolist()]
    pairs += [(None, row, None) for row in np.delete(np.arange(len(theirs)), matches.theirs).tolist()]
    ids = [truth.annotations.id[rows] for truth, rows in zip(truths, (our_rows, their_rows), strict=True)]

    def place(pair: tuple[int | None, int | None, float | None]) -> tuple[int, int, int]:
        one, other, _ = pair
        image = ours.image[one] if one is not None else theirs.image[other or 0]
        return int(image), one is None, (one if one is not None else other) or 0

    for one, other, iou in sorted(pairs, key=place):
        label, new = (None if one is None else ours.label[one]), (None if other is None else theirs.label[other])
        kind: Kind
        if label is None:
            kind = "added"
        elif new is None:
            kind = "removed"
        elif label != new:
            kind = "relabelled"
        elif iou is not None and iou < unchanged:
            kind = "moved"
        else:
            continue
        image = place((one, other, iou))[0]
        yield Change(
            image=images[image],
            change=kind,
            before=None if one is None else int(ids[0][one]),
            after=None if other is None else int(ids[1][other]),
            class_before=None if label is None else _called(int(label), names),
            class_after=None if new is None else _called(int(new), names),
            iou=None if iou is None else round(iou, 4),
        )


def _called(label: int, names: Sequence[str]) -> str:
    return names[label // 2] + (" (crowd)" if label % 2 else "")


def _columns(truth: GroundTruth, images: Sequence[int], names: Sequence[str]) -> tuple[InstanceColumns, Ints]:
    """The instances of these images, and their rows. Labels are twice the place of the name, and 1 more for crowds."""
    number = np.full(len(truth.images), -1)
    number[list(images)] = np.arange(len(images))
    label = np.asarray([names.index(category.name) for category in truth.categories], dtype=np.int64)
    rows = truth.annotations
    columns = InstanceColumns.of_truth(truth, number[rows.image], 2 * label[rows.label] + rows.crowd)
    kept = np.flatnonzero(columns.image >= 0)
    masks = None if columns.masks is None else columns.masks.take(kept)
    return InstanceColumns(columns.image[kept], columns.label[kept], columns.boxes[kept], masks), kept


def _by_name(truth: GroundTruth) -> dict[str, int]:
    found: dict[str, int] = {}
    for row, info in enumerate(truth.images):
        name = _name(info)
        if found.setdefault(name, row) != row:
            raise DataError(f"{truth.name}: several images are called {name}: they cannot be told apart by name")
    return found


def _name(info: ImageInfo) -> str:
    return info.file_name or str(info.id)


def _as_named_alike(ours: dict[str, int], theirs: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Without folders where they have no name in common and these tell no images apart: editors often drop them."""
    if set(ours) & set(theirs):
        return ours, theirs
    plain = [{PurePath(name).name: row for name, row in names.items()} for names in (ours, theirs)]
    if len(plain[0]) < len(ours) or len(plain[1]) < len(theirs):
        return ours, theirs
    return plain[0], plain[1]
