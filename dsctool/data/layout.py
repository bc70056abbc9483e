"""Where the parts of a data set lie.

The standard layout is COCO's own::

    ROOT/annotations/instances_<split>.json
    ROOT/<split>/                            images
    ROOT/stuffthingmaps/<split>/             stuff-and-thing maps, optional
    ROOT/stuffthingmaps/labels.txt           names of their values, optional: COCO-Stuff's have 182
    ROOT/annotations/panoptic_<split>.json   panoptic truth with its folder of PNGs, optional
    ROOT/annotations/image_info_test-dev2017.json with ROOT/test2017/, which have no annotations

Anything else is named in the configuration (``data.train.annotations``, ``data.train.images``, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsctool.config.model_schema import STUFFTHINGMAPS_CLASSES
from dsctool.config.schema import DataConfig, SplitConfig
from dsctool.data.importing.looks import import_hint
from dsctool.data.stuff import values_in
from dsctool.errors import DataError
from dsctool.terms import Role

_PREFIX = "instances_"
_IMAGE_INFO = "image_info_"


@dataclass(frozen=True)
class SplitFiles:
    """One split on disk.

    annotations: COCO JSON file.
    images: folder that the annotations' file names are relative to.
    semantic_maps: folder of stuff-and-thing PNGs, or None where there is none.
    semantic_classes: the maps' values are below this, or 255 where nothing is labelled.
    weights: JSON file that says how often images are trained on, or None.
    """

    annotations: Path
    images: Path
    semantic_maps: Path | None = None
    semantic_classes: int = STUFFTHINGMAPS_CLASSES
    weights: Path | None = None


def find_split(root: Path, split: SplitConfig, role: Role) -> SplitFiles:
    """The files of the split that ``data.<role>`` describes.

    Explicit paths win, then the split's name, then the only ``instances_<role>*.json`` there is.

    Raises:
        DataError: nothing fits, or more than one file does; the message lists what was found.
    """
    _check_root(root)
    name = split.split
    if split.annotations is not None:
        annotations = root / split.annotations
    else:
        name = name or _only_split(root, role)
        annotations = root / "annotations" / f"{_PREFIX}{name}.json"
    if not annotations.is_file():
        key = "annotations" if split.annotations is not None else "split"
        problem = "is not a file" if annotations.exists() else "no such file"
        raise DataError(f"{annotations}: {problem}; {_found(root)}. Set data.{role}.{key}")
    images = root / split.images if split.images is not None else root / (name or _split_name(annotations))
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of images for {annotations}. Set data.{role}.images")
    weights = None if split.weights is None else root / split.weights
    maps = _semantic_maps(root, split, role, images.name)
    return SplitFiles(annotations, images, maps, _values(maps), weights)


def find_test_dev(root: Path) -> SplitFiles:
    """COCO's test-dev images, which have no annotations: ``annotations/image_info_test-dev2017.json``, ``test2017/``.

    Raises:
        DataError: there is no such file or folder, or more than one file; the message says what was found.
    """
    _check_root(root)
    files = sorted((root / "annotations").glob(f"{_IMAGE_INFO}test-dev*.json"))
    if len(files) != 1:
        problem = f"{len(files)} files" if files else "no file"
        raise DataError(
            f"{root}: {problem} annotations/{_IMAGE_INFO}test-dev*.json; {_found(root)}. --test-dev needs the one that "
            f"COCO calls {_IMAGE_INFO}test-dev2017.json"
        )
    images = root / files[0].stem.removeprefix(_IMAGE_INFO).replace("test-dev", "test")
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of images for {files[0]}: put or link them there")
    return SplitFiles(files[0], images)


def find_splits(root: Path) -> list[SplitFiles]:
    """Every split of the standard layout, by name; the image folders may be missing.

    Raises:
        DataError: ``root`` is not a folder, or holds no annotation file.
    """
    _check_root(root)
    files = _annotation_files(root)
    if not files:
        raise DataError(f"{root}: no data set of the standard layout; {_found(root)}")
    splits = []
    for file in files:
        name = _split_name(file)
        folder = root / "stuffthingmaps" / name
        maps = folder if folder.is_dir() else None
        splits.append(SplitFiles(file, root / name, maps, _values(maps)))
    return splits


def find_configured(root: Path, data: DataConfig) -> list[tuple[SplitFiles, bool]]:
    """The splits to look at, and whether each is trained on: those that ``data`` names, or else all there are.

    Raises:
        DataError: as :func:`find_split` and :func:`find_splits`.
    """
    if data.train == data.val == SplitConfig() and data.val_share is None:
        return [(files, files.images.name.startswith("train")) for files in find_splits(root)]
    splits = [(find_split(root, data.train, "train"), True)]
    names = (_split_name(file) for file in _annotation_files(root))
    if data.val_share is None and (data.val != SplitConfig() or any(name.startswith("val") for name in names)):
        splits.append((find_split(root, data.val, "val"), False))
    return splits


def _check_root(root: Path) -> None:
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {problem}; the root of a data set holds annotations/ and the image folders")


def _annotation_files(root: Path) -> list[Path]:
    return sorted((root / "annotations").glob(f"{_PREFIX}*.json"))  # folders and dead links too: they are faults


def _split_name(annotations: Path) -> str:
    return annotations.stem.removeprefix(_PREFIX)


def _only_split(root: Path, role: Role) -> str:
    names = [_split_name(file) for file in _annotation_files(root) if _split_name(file).startswith(role)]
    if len(names) == 1:
        return names[0]
    problem = (
        f"several splits fit: {', '.join(names)}" if names else f"no annotations/{_PREFIX}{role}*.json; {_found(root)}"
    )
    raise DataError(f"{root}: {problem}. Set data.{role}.split (or data.{role}.annotations and data.{role}.images)")


def _semantic_maps(root: Path, split: SplitConfig, role: Role, name: str) -> Path | None:
    if split.semantic_maps is None:
        standard = root / "stuffthingmaps" / name
        return standard if standard.is_dir() else None
    folder = root / split.semantic_maps
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of semantic maps. Set data.{role}.semantic_maps")
    return folder


def _values(maps: Path | None) -> int:
    return STUFFTHINGMAPS_CLASSES if maps is None else values_in(maps)


def _found(root: Path) -> str:
    """What lies where annotations should, and the importer for it where there is no split at all."""
    hint = None if _annotation_files(root) else import_hint(root)
    folder = root / "annotations"
    if not folder.is_dir():
        entries = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())[:10]
        found = f"there is no folder {folder} (found: {', '.join(entries) or 'nothing'})"
    else:
        entries = sorted(path.name for path in folder.iterdir())[:10]
        found = f"{folder} holds: {', '.join(entries) or 'nothing'}"
    return f"{found}; {hint}" if hint else found
