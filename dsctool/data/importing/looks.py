"""What a folder without annotations of the standard layout looks like, for a hint that names the importer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dsctool.data.importing.files import files_below, image_suffixes
from dsctool.data.importing.mask_files import is_mask_folder, is_mask_name, picture_stem

_LOOKED_AT = 20_000
_READ = 65_536

NAMES = {
    "label-images": "pictures with label images",
    "binary-masks": "pictures with a mask file for each instance",
    "labelme": "LabelMe",
    "cvat": "CVAT for images",
    "via": "VIA",
    "label-studio": "Label Studio",
    "voc": "Pascal VOC with masks",
    "yolo": "YOLO segmentation",
    "coco": "COCO in another layout",
    "livecell": "LIVECell",
    "darwin": "Darwin",
}
"""Of the kinds, in words."""


def import_hint(root: Path) -> str | None:
    """Which command imports what lies in a folder; None where nothing is recognised."""
    kind = looks_like(root)
    if kind is None:
        return None
    return f"it looks like {NAMES[kind]}: dsctool data import {kind} {root} --output NEW"


def looks_like(root: Path) -> str | None:
    """The kind of a folder, by the names of its files and the first bytes of a few."""
    files = list(islice(files_below(root), _LOOKED_AT))
    folders = {part for file in files for part in file.relative_to(root).parts[:-1]}
    if "SegmentationObject" in folders:
        return "voc"
    for kind in _by_content(files):
        return kind
    suffixes = image_suffixes()
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in suffixes}
    stems = {path.name for path in pictures}
    texts = [file for file in files if file.suffix == ".txt" and file.stem in stems]
    if texts and any(_is_yolo(file) for file in texts[:20]):
        return "yolo"
    return _masks(root, [file for file in files if file.suffix.lower() in suffixes])


def _by_content(files: list[Path]) -> Iterator[str]:
    """What the first XML or JSON files that are known say."""
    for file in [file for file in files if file.suffix.lower() in (".xml", ".json")][:50]:
        text = _ends(file)
        kind = _xml(text) if file.suffix.lower() == ".xml" else _json(text, file)
        if kind is not None:
            yield kind


def _ends(file: Path) -> bytes:
    """The first bytes of a file and the last; none of one that cannot be read, which is said where it is needed."""
    try:
        with file.open("rb") as content:
            text = content.read(_READ)
            if file.stat().st_size > _READ:
                content.seek(-_READ, 2)
                text += content.read()
    except OSError:
        return b""
    return text


def _xml(text: bytes) -> str | None:
    return "cvat" if b"<annotations" in text and b"<image" in text else None


def _json(text: bytes, file: Path) -> str | None:
    def has(*keys: str) -> bool:
        return all(f'"{key}"'.encode() in text for key in keys)

    if has("shapes", "imagePath"):
        return "labelme"
    if has("_via_img_metadata") or has("filename", "regions", "shape_attributes"):
        return "via"
    if has("item", "annotations", "slots"):
        return "darwin"
    if has("data", "annotations", "result"):
        return "label-studio"
    if has("images") and (has("annotations") or has("categories")):
        return "livecell" if "livecell" in str(file).lower() else "coco"
    return None


def _is_yolo(file: Path) -> bool:
    """Whether the first line is a class's number and shares of the picture's sides."""
    words = _ends(file).split(b"\n", 1)[0].split()
    if len(words) < 5 or not words[0].isdigit():
        return False
    try:
        return all(-1 <= float(word) <= 2 for word in words[1:])
    except ValueError:
        return False


def _masks(root: Path, pictures: list[Path]) -> str | None:
    """Label images, which are called as their pictures are, or masks of single instances."""
    masks = [
        file
        for file in pictures
        if any(is_mask_folder(part) for part in file.relative_to(root).parts[:-1]) or is_mask_name(file.stem)
    ]
    if not masks or len(masks) == len(pictures):
        return None
    apart = set(masks)
    shown = {file.stem for file in pictures if file not in apart}
    own = sum(picture_stem(file.stem) in shown or file.stem in shown for file in masks)
    return "label-images" if 2 * own > len(masks) else "binary-masks"
