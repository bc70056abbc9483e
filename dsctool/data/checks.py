"""Finding every fault of a data set before it is used.

``dsctool data check`` reports all of them, and training refuses the same ones in the same words. Faults of
severity ``warning`` are reported too, but training lives with them (see :mod:`dsctool.data.rules`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsctool.config.schema import DataConfig
from dsctool.data.bands import Channels
from dsctool.data.classes import lacking, listed, match_categories, met_categories
from dsctool.data.columns import Reading, has_segmentations, read_columns
from dsctool.data.faults import Exclusions, Fault, Severity, exclusions, has_errors, refuse_faults
from dsctool.data.file_names import image_path
from dsctool.data.images import image_size, read_picture
from dsctool.data.layout import SplitFiles, find_configured
from dsctool.data.panoptic_truth import check_panoptic, panoptic_files
from dsctool.data.records import IMAGES_ONLY, AnnotationFile, Category, ImageInfo, read_annotation_file
from dsctool.data.rules import Needs
from dsctool.data.same_files import file_name_faults, in_both, missing_hint, with_name_hints
from dsctool.data.semantic import read_semantic_map, semantic_map_path
from dsctool.data.usage import Usage
from dsctool.entries import Entries
from dsctool.errors import DataError
from dsctool.terms import Progress

PIXELS = "pixels"
"""Kind of the warnings about what an image file becomes."""
DECODE_LIMIT = 10_000
"""Sets of more images are not decoded before they are used, unless what is broken is to be left out."""


def check_data(
    root: Path,
    *,
    masks: bool = True,
    progress: Progress | None = None,
    fullest: Callable[[Path, int], None] | None = None,
    data: DataConfig | None = None,
) -> list[Fault]:
    """Faults of every split of a standard layout, every image and map decoded, and notes; empty when there are none.

    masks: every annotation needs a segmentation; False for data with boxes only.
    fullest: told the most instances that an image of an annotation file has.
    data: names other splits, and says what is taken of images, as for training.
    """
    try:
        splits = find_configured(root, data or DataConfig())
    except DataError as error:
        return [_file_fault(root, "layout", error)]
    faults = check_splits(splits, data, masks=masks, progress=progress, fullest=fullest)
    for path in panoptic_files(root):
        faults += check_panoptic(path, progress=progress)
    return faults


def check_splits(
    splits: Sequence[tuple[SplitFiles, bool]],
    data: DataConfig | None = None,
    *,
    masks: bool = True,
    progress: Progress | None = None,
    fullest: Callable[[Path, int], None] | None = None,
) -> list[Fault]:
    """The same of splits of one data set, each with whether it is trained on.

    With ``data.on_error: skip`` what remains without faulty images and annotations must be enough.
    """
    faults: list[Fault] = []
    tables: list[_Classes] = []
    pictures: list[tuple[Path, bool, list[Path]]] = []
    for files, learnt in splits:
        content = _read(files)
        if isinstance(content, Fault):
            faults.append(content)
            continue
        needs = Needs(masks=masks and (learnt or has_segmentations(content)))  # what is only measured may have none
        reading = read_columns(content, needs, progress)
        entries = with_name_hints(reading.faults, content, files.images)
        del content  # the text of the file
        found = [*entries, *_check_images(files, reading, decode=True, progress=progress, data=data)]
        pictures.append((files.annotations, learnt, [image_path(files.images, i.file_name) for i in reading.images]))
        usage = Usage.of(reading)
        if fullest is not None:
            fullest(files.annotations, int(usage.instances.max(initial=0)))
        faults += [*found, *_use(files, reading, usage, learnt=learnt)]
        if learnt and data is not None and data.on_error == "skip":
            faults += _nothing_left(files, reading, usage, found)
        if not has_errors([fault for fault in found if fault.subject in ("file", "category")]):
            tables.append(_Classes(files.annotations, reading.categories, met_categories(reading)))
    return [*faults, *_category_conflicts(tables), *_seen_before(pictures)]


@dataclass(frozen=True)
class CheckedSplit:
    """What opening a split needs: one process checks, every process opens.

    exclude: what is left out. faults: all that were found.
    reading: what the annotation file holds; None has it read again, by a process that did not check.
    needs: what its entries must have.
    """

    files: SplitFiles
    needs: Needs
    exclude: Exclusions
    faults: tuple[Fault, ...]
    reading: Reading | None

    def without_reading(self) -> CheckedSplit:
        """The same, small enough to send to other processes."""
        return replace(self, reading=None)

    def read(self) -> Reading:
        """What the annotation file holds."""
        return self.reading or read_columns(read_annotation_file(self.files.annotations), self.needs)


def check_for_training(
    files: SplitFiles, config: DataConfig, *, masks: bool, progress: Progress | None = None
) -> CheckedSplit:
    """Check what training uses of a split; images are decoded or only looked at, see :func:`decodes_first`.

    Raises:
        DataError: there are faults and ``data.on_error`` is ``fail``, or faults that cannot be left out.
    """
    if not (masks and config.semantic == "stuffthingmaps"):
        files = replace(files, semantic_maps=None)
    return _check_for_use(files, _read(files), config, masks=masks, progress=progress)


def check_for_evaluation(
    files: SplitFiles, config: DataConfig, *, masks: bool, progress: Progress | None = None
) -> CheckedSplit:
    """The same for a split to measure on: segmentations are needed only where the file has any, semantic maps never."""
    content = _read(files)
    masks = masks and isinstance(content, AnnotationFile) and has_segmentations(content)
    files = replace(files, semantic_maps=None)
    return _check_for_use(files, content, config, masks=masks, progress=progress)


def check_unannotated(files: SplitFiles, config: DataConfig, *, progress: Progress | None = None) -> Reading:
    """Check a split of which only images and categories are known: nothing of it may be left out.

    Raises:
        DataError: there are faults.
    """
    content = read_annotation_file(files.annotations, needed=IMAGES_ONLY)
    reading = read_columns(replace(content, annotations=Entries([])), Needs(masks=False))
    decode = decodes_first(content, config)
    refuse_faults([*reading.faults, *_check_images(files, reading, decode, progress, config)])
    return reading


def _check_for_use(
    files: SplitFiles,
    content: AnnotationFile | Fault,
    config: DataConfig,
    *,
    masks: bool,
    progress: Progress | None,
) -> CheckedSplit:
    needs = Needs(masks=masks)
    if isinstance(content, Fault):
        return CheckedSplit(files, needs, exclusions([content], config.on_error), (content,), None)
    reading = read_columns(content, needs, progress)
    decode = decodes_first(content, config)
    entries = with_name_hints(reading.faults, content, files.images)
    del content  # the text of the file
    faults = [*entries, *_check_images(files, reading, decode, progress, config)]
    return CheckedSplit(files, needs, exclusions(faults, config.on_error), tuple(faults), reading)


def decodes_first(content: AnnotationFile, config: DataConfig) -> bool:
    """Whether all images are decoded before a set is used, not just looked at.

    With ``data.on_error: skip`` always: a broken image that is met later can only stop the command.
    """
    return config.on_error == "skip" or len(content.images) <= DECODE_LIMIT


_ID_0 = "COCO's evaluator counts a match with id 0 as a miss: number from 1, or have --fix do it"


def _use(files: SplitFiles, reading: Reading, usage: Usage, *, learnt: bool) -> list[Fault]:
    """What training would say of annotations that it does not use, or of too few; only training sets need any."""
    notes = [*reading.notes, *([usage.note] if usage.note else [])]
    found = [Fault(files.annotations, "file", None, None, "note", note, "note") for note in notes]
    met = met_categories(reading)
    unmet = [each.name for each in reading.categories if each.id not in met]
    if learnt and unmet and len(unmet) < len(reading.categories) and not has_errors(reading.faults):
        message = f"no annotation has {listed(unmet)}: nothing of {'it' if len(unmet) == 1 else 'them'} is learnt"
        found.append(Fault(files.annotations, "file", None, None, "note", message, "note"))
    if (place := np.flatnonzero(reading.annotations.id == 0)).size:
        index = int(reading.annotations.place[place[0]])
        found.append(Fault(files.annotations, "annotation", 0, index, "id 0", _ID_0, "note"))
    if usage.reason and not has_errors(reading.faults):
        what = "train on" if learnt else "measure"
        fault = Fault(
            files.annotations, "file", None, None, f"nothing to {what}", f"has nothing to {what}: {usage.reason}"
        )
        found.append(fault if learnt else replace(fault, severity="warning"))
    return found


def _nothing_left(files: SplitFiles, reading: Reading, usage: Usage, faults: Sequence[Fault]) -> list[Fault]:
    """Where all that could be learnt from is left out because of its faults."""
    broken = {fault.index for fault in faults if fault.subject == "image" and fault.severity == "error"}
    kept = [count for place, count in zip(reading.places, usage.instances.tolist(), strict=True) if place not in broken]
    if any(kept) or not has_errors(faults):
        return []
    message = "has nothing to train on: without the faulty images and annotations no instance is left"
    return [Fault(files.annotations, "file", None, None, "nothing to train on", message)]


def _read(files: SplitFiles) -> AnnotationFile | Fault:
    try:
        return read_annotation_file(files.annotations)
    except DataError as error:
        return _file_fault(files.annotations, "file", error)


def _file_fault(file: Path, kind: str, error: DataError) -> Fault:
    return Fault(file, "file", None, None, kind, str(error).removeprefix(f"{file}: "))


def _check_images(
    files: SplitFiles, reading: Reading, decode: bool, progress: Progress | None, data: DataConfig | None = None
) -> list[Fault]:
    """Faults of the files of all images whose entries are faultless, and what to know of them."""
    if not files.images.is_dir():
        return [Fault(files.annotations, "file", None, None, "missing file", f"no folder of images {files.images}")]
    channels = Channels.of(data or DataConfig())
    images = list(zip(reading.places, reading.images, strict=True))

    def problems(image: tuple[int, ImageInfo]) -> list[Fault]:
        index, info = image
        found = _image_problems(files, info, decode, channels)
        return [Fault(files.annotations, "image", info.id, index, *problem) for problem in found]

    faults = file_name_faults(files.annotations, files.images, images, contents=decode)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16)) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on odd but readable files
        for done, found in enumerate(pool.map(problems, images), start=1):
            faults += found
            if progress is not None:
                progress(files.images.name, done, len(images))
    return faults


def _image_problems(
    files: SplitFiles, info: ImageInfo, decode: bool, channels: Channels
) -> Iterator[tuple[str, str, Severity]]:
    """Kind, message and severity."""
    path = image_path(files.images, info.file_name)
    size = (info.height, info.width)
    try:
        if decode:
            for remark in read_picture(path, size, channels).remarks:
                yield PIXELS, remark, "warning"
        else:
            image_size(path, size)
    except DataError as error:
        missing = "" if os.path.lexists(path) else missing_hint(files.images, info.file_name)
        yield "image", f"{error}{missing}", "error"
    if files.semantic_maps is not None:
        try:
            if decode:
                read_semantic_map(files.semantic_maps, info, classes=files.semantic_classes)
            else:
                image_size(semantic_map_path(files.semantic_maps, info), size)
        except DataError as error:
            yield "semantic map", str(error), "error"


def _seen_before(pictures: Sequence[tuple[Path, bool, list[Path]]]) -> Iterator[Fault]:
    """Images to measure on that are learnt from. pictures: of every split, with whether it is learnt."""
    for learnt in [each for each in pictures if each[1]][:1]:
        for file, also_learnt, paths in pictures:
            if not also_learnt and (count := in_both(learnt[2], paths)):
                message = f"{count} of {len(paths)} images are those of {learnt[0]} too: what is measured on them says "
                yield Fault(file, "file", None, None, "seen before", f"{message}little of new ones", "note")


class _Classes(NamedTuple):
    """The categories of a file, and the ids of those that its annotations have."""

    file: Path
    categories: list[Category]
    met: frozenset[int]


def _category_conflicts(tables: list[_Classes]) -> list[Fault]:
    """Splits of one data set must agree on the classes of the training split, as training has it."""
    learnt = [table for table in tables if table.file.stem.startswith("instances_train")]
    faults = []
    for model in (learnt or tables)[:1]:
        for file, categories, met in tables:
            try:
                match_categories(model.categories, categories, file, met)
            except DataError as error:
                faults.append(_file_fault(file, "categories", error))
            else:
                if lacks := lacking(model.categories, categories):
                    faults.append(Fault(file, "file", None, None, "categories", lacks, "note"))
    return faults
