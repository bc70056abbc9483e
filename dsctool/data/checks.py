"""Finding every fault of a data set before it is used.

``dsctool data check`` reports all of them, and training refuses the same ones in the same words. Faults of
severity ``warning`` are reported too, but training lives with them (see :mod:`dsctool.data.rules`).
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dsctool.config.schema import DataConfig
from dsctool.data.faults import Exclusions, Fault, exclusions
from dsctool.data.images import image_size, read_image
from dsctool.data.layout import SplitFiles, find_splits
from dsctool.data.records import AnnotationFile, ImageInfo, read_annotation_file
from dsctool.data.rules import check_records
from dsctool.data.semantic import read_semantic_map, semantic_map_path
from dsctool.errors import DataError
from dsctool.structures import Progress

CategoryTable = dict[int, str]
"""Category names by id."""

DECODE_LIMIT = 10_000
"""Sets of more images are not decoded before they are used, unless what is broken is to be left out."""


def check_data(
    root: Path,
    *,
    masks: bool = True,
    progress: Progress | None = None,
    fullest: Callable[[Path, int], None] | None = None,
) -> list[Fault]:
    """Faults of every split of a standard layout, every image decoded; empty when there are none.

    masks: every annotation needs a segmentation; False for data with boxes only.
    fullest: told the most instances that an image of an annotation file has.
    """
    try:
        splits = find_splits(root)
    except DataError as error:
        return [_file_fault(root, "layout", error)]
    faults: list[Fault] = []
    tables: list[tuple[Path, CategoryTable]] = []
    for files in splits:
        content, found = _read(files)
        if content is not None:
            found += _check_content(files, content, decode_images=True, masks=masks, progress=progress)
            if fullest is not None:
                fullest(files.annotations, _most_instances(content, found))
        faults += found
        if content is not None and not any(fault.subject in ("file", "category") for fault in found):
            tables.append((files.annotations, {entry["id"]: entry["name"] for entry in content.categories}))
    return faults + _category_conflicts(tables)


@dataclass(frozen=True)
class CheckedSplit:
    """What opening a split needs: one process checks, every process opens.

    exclude: what is left out. faults: all that were found.
    content: the annotation file as it was read; None has it read again, by a process that did not check.
    """

    files: SplitFiles
    exclude: Exclusions
    faults: tuple[Fault, ...]
    content: AnnotationFile | None

    def without_content(self) -> CheckedSplit:
        """The same, small enough to send to other processes."""
        return replace(self, content=None)


def check_for_training(
    files: SplitFiles, config: DataConfig, *, masks: bool, progress: Progress | None = None
) -> CheckedSplit:
    """Check what training uses of a split; images are decoded or only looked at, see :func:`decodes_first`.

    Raises:
        DataError: there are faults and ``data.on_error`` is ``fail``, or faults that cannot be left out.
    """
    content, faults = _read(files)
    if not (masks and config.semantic == "stuffthingmaps"):
        files = replace(files, semantic_maps=None)
    return _check_for_use(files, content, faults, config, masks=masks, progress=progress)


def check_for_evaluation(
    files: SplitFiles, config: DataConfig, *, masks: bool, progress: Progress | None = None
) -> CheckedSplit:
    """The same for a split to measure on: segmentations are needed only where the file has any, semantic maps never."""
    content, faults = _read(files)
    masks = masks and content is not None and _has_segmentations(content)
    files = replace(files, semantic_maps=None)
    return _check_for_use(files, content, faults, config, masks=masks, progress=progress)


def _check_for_use(
    files: SplitFiles,
    content: AnnotationFile | None,
    faults: list[Fault],
    config: DataConfig,
    *,
    masks: bool,
    progress: Progress | None,
) -> CheckedSplit:
    if content is not None:
        decode = decodes_first(content, config)
        faults = faults + _check_content(files, content, decode_images=decode, masks=masks, progress=progress)
    return CheckedSplit(files, exclusions(faults, config.on_error), tuple(faults), content)


def _has_segmentations(content: AnnotationFile) -> bool:
    return any(isinstance(entry, dict) and entry.get("segmentation") for entry in content.annotations)


def decodes_first(content: AnnotationFile, config: DataConfig) -> bool:
    """Whether all images are decoded before a set is used, not just looked at.

    With ``data.on_error: skip`` always: a broken image that is met later can only stop the command.
    """
    return config.on_error == "skip" or len(content.images) <= DECODE_LIMIT


def _read(files: SplitFiles) -> tuple[AnnotationFile | None, list[Fault]]:
    try:
        return read_annotation_file(files.annotations), []
    except DataError as error:
        return None, [_file_fault(files.annotations, "file", error)]


def _check_content(
    files: SplitFiles, content: AnnotationFile, *, decode_images: bool, masks: bool, progress: Progress | None
) -> list[Fault]:
    faults = check_records(content, masks=masks)
    return faults + _check_images(files, _intact_images(content, faults), decode_images, progress)


def _most_instances(content: AnnotationFile, faults: Sequence[Fault]) -> int:
    """Of one image, faulty annotations and crowds left out."""
    faulty = {fault.index for fault in faults if fault.subject == "annotation"}
    sound = (entry for index, entry in enumerate(content.annotations) if index not in faulty)
    counts = Counter(entry["image_id"] for entry in sound if not entry["iscrowd"])
    return max(counts.values(), default=0)


def _file_fault(file: Path, kind: str, error: DataError) -> Fault:
    return Fault(file, "file", None, None, kind, str(error).removeprefix(f"{file}: "))


def _intact_images(content: AnnotationFile, faults: list[Fault]) -> list[tuple[int, ImageInfo]]:
    """The images whose entries are faultless, with their place in the file."""
    faulty = {fault.index for fault in faults if fault.subject == "image"}
    return [
        (index, ImageInfo(entry["id"], entry["file_name"], entry["width"], entry["height"]))
        for index, entry in enumerate(content.images)
        if index not in faulty
    ]


def _check_images(
    files: SplitFiles,
    images: list[tuple[int, ImageInfo]],
    decode: bool,
    progress: Progress | None,
) -> list[Fault]:
    if not files.images.is_dir():
        return [Fault(files.annotations, "file", None, None, "missing file", f"no folder of images {files.images}")]

    def problems(image: tuple[int, ImageInfo]) -> list[Fault]:
        index, info = image
        found = _image_problems(files, info, decode)
        return [Fault(files.annotations, "image", info.id, index, kind, message) for kind, message in found]

    faults: list[Fault] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 16)) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on odd but readable files
        for done, found in enumerate(pool.map(problems, images), start=1):
            faults += found
            if progress is not None:
                progress(files.images.name, done, len(images))
    return faults


def _image_problems(files: SplitFiles, info: ImageInfo, decode: bool) -> Iterator[tuple[str, str]]:
    path = files.images / info.file_name
    size = (info.height, info.width)
    try:
        if decode:
            read_image(path, size)
        else:
            image_size(path, size)
    except DataError as error:
        yield "image", str(error)
    if files.semantic_maps is not None:
        try:
            if decode:
                read_semantic_map(files.semantic_maps, info, classes=files.semantic_classes)
            else:
                image_size(semantic_map_path(files.semantic_maps, info), size)
        except DataError as error:
            yield "semantic map", str(error)


def _category_conflicts(tables: list[tuple[Path, CategoryTable]]) -> list[Fault]:
    """Splits of one data set must agree on the classes, or labels mean different things in each."""
    return [
        Fault(file, "file", None, None, "categories", f"categories differ from those of {tables[0][0]}")
        for file, table in tables[1:]
        if table != tables[0][1]
    ]
