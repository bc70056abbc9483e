"""From a source of a kind to a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsctool.data.importing import (
    binary_masks,
    coco,
    cvat,
    darwin,
    label_images,
    label_studio,
    labelme,
    via,
    voc,
    yolo,
)
from dsctool.data.importing.record import Found, Options, Picture
from dsctool.data.importing.splitting import split_pictures
from dsctool.data.importing.writing import write_set
from dsctool.errors import DataError
from dsctool.terms import Progress

READERS: dict[str, Callable[[Path, Options], Found]] = {
    "label-images": label_images.read,
    "binary-masks": binary_masks.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "via": via.read,
    "label-studio": label_studio.read,
    "voc": voc.read,
    "yolo": yolo.read,
    "coco": coco.read,
    "livecell": coco.read_livecell,
    "darwin": darwin.read,
}
"""By the name of their kind."""


@dataclass(frozen=True)
class Imported:
    """What was made. images, instances: by part. notes: what was left out or looks odd, for people."""

    images: dict[str, int]
    instances: dict[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def import_set(
    kind: str,
    source: Path,
    output: Path,
    options: Options,
    *,
    share: float | None = None,
    seed: int = 0,
    group_by: str | None = None,
    link: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Make a data set of the standard layout; ``share``, ``seed`` and ``group_by`` as in :func:`split_pictures`.

    Raises:
        DataError: the source, or what would be made of it, has faults; nothing is left half written.
    """
    if not source.exists():
        raise DataError(f"{source}: does not exist")
    if source.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise DataError(f"{source}: is an archive; unpack it, and name the folder")
    source = Path(os.path.abspath(source))  # noqa: PTH100 - links are not followed
    found = READERS[kind](source, options)
    notes = list(found.notes)
    pictures = _with_areas(found.pictures, options, notes)
    if not any(picture.instances for picture in pictures):
        raise DataError("\n".join([f"{source}: {len(pictures)} pictures, and no instance with a mask", *notes]))
    parts = split_pictures(pictures, share=share, seed=seed, group_by=group_by)
    classes = list(dict.fromkeys(found.classes))
    used = {instance.category for picture in pictures for instance in picture.instances}
    classes += sorted(used - set(classes))
    instances, written = write_set(output, parts, classes, link=link, progress=progress)
    notes += written
    images = {part: len(each) for part, each in parts.items()}
    return Imported(images, instances, tuple(classes), tuple(notes))


def _with_areas(pictures: Sequence[Picture], options: Options, notes: list[str]) -> list[Picture]:
    """Pictures without what is no area, which is counted."""
    shapes = Counter(name for picture in pictures for name in picture.left_out)
    if shapes:
        counted = ", ".join(f"{count} {name}" for name, count in shapes.most_common())
        notes.append(f"left out, since they are no areas: {counted}")
    boxes = sum(instance.box for picture in pictures for instance in picture.instances)
    if boxes and not options.boxes:
        notes.append(f"left out: {boxes} objects of which only a box is known; --boxes makes rectangles of them")
        return [
            replace(picture, instances=tuple(each for each in picture.instances if not each.box))
            for picture in pictures
        ]
    return list(pictures)
