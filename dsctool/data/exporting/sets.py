"""Data sets of the standard layout for editors and other tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.importing.coco import read_set
from dsctool.data.importing.label_images import CLASSES_FILE
from dsctool.data.importing.rasters import window
from dsctool.data.importing.record import Found, Instance, Picture
from dsctool.data.importing.writing import file_names, write_set
from dsctool.data.new_folder import bring, whole_folder
from dsctool.data.outlines import Part, Ring, border_error, midpoints, outline, simplified, with_seams
from dsctool.data.shapes import drawn
from dsctool.errors import DataError
from dsctool.terms import Progress, Size

LARGEST_ERROR = 1
"""How far a simplified border may be off, in pixels; where it would be more, it is not simplified."""


@dataclass(frozen=True)
class Options:
    """simplify: how far points of a border may be from the line without them, in pixels; 0: exact borders along pixels.

    label_studio: COCO as its converter takes it, which makes an object of each polygon and of each box, and stops at
    masks: one polygon for each instance, its parts joined by seams, no boxes, no crowds.
    link: pictures are linked instead of copied.
    """

    simplify: float = 0.75
    label_studio: bool = False
    link: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written: pictures, instances, and what was left out, for people."""

    images: int
    instances: int
    notes: tuple[str, ...] = ()


def export_set(kind: str, root: Path, output: Path, options: Options, progress: Progress | None = None) -> Exported:
    """Write a data set of the standard layout as another kind.

    Raises:
        DataError: it has faults, or ``output`` is not new; nothing is left half written.
    """
    return WRITERS[kind](read_set(root), output, options, progress)


def export_coco(found: Found, output: Path, options: Options, progress: Progress | None) -> Exported:
    """COCO's files and layout with polygons for every instance, holes cut in by seams; crowds stay masks."""
    pictures = []
    crowds = 0
    for number, picture in enumerate(found.pictures, start=1):
        kept = [each for each in picture.instances if not (each.crowd and options.label_studio)]
        crowds += len(picture.instances) - len(kept)
        instances = tuple(_as_polygons(each, picture.size, options) for each in kept)
        pictures.append(replace(picture, instances=instances))
        _tell(progress, "outlines", number, len(found.pictures))
    parts: dict[str, list[Picture]] = {}
    for picture in pictures:
        parts.setdefault(picture.split or "train", []).append(picture)
    boxes = not options.label_studio
    counts, notes = write_set(output, parts, list(found.classes), link=options.link, boxes=boxes, progress=progress)
    notes += _crowds_note(crowds)
    return Exported(len(pictures), sum(counts.values()), tuple(notes))


def export_label_images(found: Found, output: Path, options: Options, progress: Progress | None) -> Exported:
    """``images/`` and ``masks/``, with a 16-bit PNG for each picture, and ``classes.csv``: image, value, class.

    Where instances overlap, the smaller one is seen; crowds are left out.
    """
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["image", "value", "class"])
    crowds = covered = count = 0
    with whole_folder(output) as partial:
        for number, (picture, name) in enumerate(_named(found.pictures), start=1):
            bring(picture.path, partial / "images" / name, link=options.link)
            values = np.zeros(picture.size, dtype=np.uint16)
            kept = [each for each in picture.instances if not each.crowd]
            crowds += len(picture.instances) - len(kept)
            if len(kept) > 65_535:
                raise DataError(f"{picture.path}: has {len(kept)} instances, and 16 bits tell 65,535 apart")
            rles = [each.rle(picture.size) for each in kept]
            for place in sorted(range(len(kept)), key=lambda n: -int(coco_mask.area(rles[n]))):
                if not coco_mask.area(rles[place]):
                    continue
                left, top, mask = window(rles[place])
                part = values[top : top + mask.shape[0], left : left + mask.shape[1]]
                covered += int(np.count_nonzero(part[mask != 0]))
                part[mask != 0] = place + 1
            rows.writerows([name, place + 1, each.category] for place, each in enumerate(kept))
            target = (partial / "masks" / name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(target)
            count += len(kept)
            _tell(progress, "label images", number, len(found.pictures))
        (partial / CLASSES_FILE).write_text(table.getvalue(), encoding="utf-8")
    notes = _crowds_note(crowds)
    if covered:
        notes.append(f"{covered} pixels belong to several instances: label images keep the smaller one")
    return Exported(len(found.pictures), count, tuple(notes))


def export_yolo(found: Found, output: Path, options: Options, progress: Progress | None) -> Exported:
    """``images/<part>``, ``labels/<part>`` and ``data.yaml``: a line an instance, joined by seams."""
    classes = list(found.classes)
    crowds = count = 0
    used: set[str] = set()
    with whole_folder(output) as partial:
        for number, (picture, name) in enumerate(_named(found.pictures), start=1):
            bring(picture.path, partial / "images" / name, link=options.link)
            lines = []
            for instance in picture.instances:
                if instance.crowd:
                    crowds += 1
                elif rings := _rings(instance, picture.size, options.simplify, whole=True):
                    shares = rings[0] / np.array([picture.size[1], picture.size[0]])
                    words = " ".join(f"{share:.7g}" for share in shares.ravel().tolist())
                    lines.append(f"{classes.index(instance.category)} {words}\n")
            target = (partial / "labels" / name).with_suffix(".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(lines), encoding="utf-8")
            used.add(PurePosixPath(name).parts[0])
            count += len(lines)
            _tell(progress, "polygons", number, len(found.pictures))
        parts = "".join(f"{part}: images/{part}\n" for part in ("train", "val", "test") if part in used)
        names = "".join(f"  {number}: {_quoted(name)}\n" for number, name in enumerate(classes))
        (partial / "data.yaml").write_text(f"path: .\n{parts}names:\n{names}", encoding="utf-8")
    return Exported(len(found.pictures), count, tuple(_crowds_note(crowds)))


WRITERS: dict[str, Callable[[Found, Path, Options, Progress | None], Exported]] = {
    "coco": export_coco,
    "label-images": export_label_images,
    "yolo": export_yolo,
}
"""By the name of their kind."""


def _as_polygons(instance: Instance, size: Size, options: Options) -> Instance:
    """The same, as polygons without holes."""
    if instance.crowd:
        return replace(instance, mask=instance.rle(size), polygons=())
    rings = _rings(instance, size, options.simplify, whole=options.label_studio)
    return replace(instance, mask=None, polygons=tuple(_flat(ring) for ring in rings))


def _rings(instance: Instance, size: Size, simplify: float, *, whole: bool) -> list[Ring]:
    """One ring for each part, or one for all; polygons that are simple enough stay as they are."""
    if instance.mask is None and (len(instance.polygons) == 1 or not whole):
        return [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in instance.polygons]
    rle = instance.rle(size)
    if not coco_mask.area(rle):
        return []
    left, top, mask = window(rle)
    rings = _fewest_points(outline(mask), mask, simplify, whole=whole)
    return [ring + np.array([left, top]) for ring in rings]


def _fewest_points(parts: Sequence[Part], mask: np.ndarray, simplify: float, *, whole: bool) -> list[Ring]:
    """Of exact and simplified borders, those of fewest points that miss the mask by a pixel at most."""
    exact = _seamed([[part.outer, *part.holes] for part in parts], whole)
    best = exact
    for smooth in (False, True) if simplify else ():
        groups = [
            [simplified(midpoints(ring) if smooth else ring, simplify) for ring in (part.outer, *part.holes)]
            for part in parts
        ]
        rings = _seamed(groups, whole)
        if (
            sum(map(len, rings)) < sum(map(len, best))
            and border_error(mask, _drawing(rings, mask.shape)) <= LARGEST_ERROR
        ):
            best = rings
    return best


def _seamed(groups: Sequence[list[Ring]], whole: bool) -> list[Ring]:
    """Rings without holes: these are joined to their parts by seams, and so are all parts where one is asked for."""
    if whole and groups:
        groups = [[ring for group in groups for ring in group]]
    return [with_seams(group) for group in groups]


def _drawing(rings: Sequence[Ring], size: tuple[int, ...]) -> np.ndarray:
    return coco_mask.decode(drawn([_flat(ring) for ring in rings], (size[0], size[1])))


def _flat(ring: Ring) -> list[float]:
    return [float(value) for value in ring.ravel()]


def _named(pictures: Sequence[Picture]) -> list[tuple[Picture, str]]:
    """Pictures with names below the folder of their part; of different stems, since masks and texts are called so."""
    named: list[tuple[Picture, str]] = []
    seen: dict[str, Picture] = {}
    for part in dict.fromkeys(picture.split or "train" for picture in pictures):
        chosen = [picture for picture in pictures if (picture.split or "train") == part]
        for picture, name in zip(chosen, file_names(chosen), strict=True):
            stem = str(PurePosixPath(part, name).with_suffix("")).casefold()
            if seen.setdefault(stem, picture) is not picture:
                raise DataError(f"{picture.path}: only its suffix differs from {seen[stem].path}: rename one of them")
            named.append((picture, f"{part}/{name}"))
    return named


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


def _crowds_note(crowds: int) -> list[str]:
    return [f"left out: {crowds} crowd regions"] if crowds else []


def _tell(progress: Progress | None, task: str, done: int, of: int) -> None:
    if progress is not None:
        progress(task, done, of)
