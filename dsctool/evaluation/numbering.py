"""Whether results and ground truth mean the same images by the same ids.

``dsctool predict`` numbers images from 1 unless it is told their ids, and ``images.json`` says which image has which
number in the results beside it that have the names ``predict`` gives. Measured against ground truth with other numbers,
such results would be worthless in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from dsctool.data.records import ImageInfo
from dsctool.errors import DataError
from dsctool.files import read_json

_SPOKEN_OF = ("predictions.json", "candidates.json")
_KEYS = {"id", "file_name", "height", "width"}


def check_numbering(predictions: Path, images: Sequence[ImageInfo], truth: str) -> None:
    """Refuse a results file beside which ``images.json`` names other images than the ground truth does.

    images: of the ground truth. truth: its name, for messages. Names are compared without folders, where these
    do not tell images apart.

    Raises:
        DataError: an image has another name or size; the message says how it gets the ground truth's id.
    """
    table = numbering_of(predictions)
    if table is None:
        return
    by_id = {image.id: image for image in images}
    names = Counter(PurePath(image.file_name).name for image in images)
    for image in _images(table):
        theirs = by_id.get(image["id"])
        if theirs is None or not _same(image, theirs, with_folders=names[PurePath(image["file_name"]).name] > 1):
            other = "has no such image" if theirs is None else f"it is {_shown(asdict(theirs))}"
            raise DataError(
                f"{predictions}: its images have other numbers than those of {truth}: image {image['id']} is "
                f"{_shown(image)} by {table}, in the ground truth {other}. "
                f"Run dsctool predict with --images-json {truth}, which takes the ids from there."
            )


def numbering_of(results: Path) -> Path | None:
    """The ``images.json`` of ``dsctool predict`` that speaks of a results file of this name, where there is one."""
    table = results.with_name("images.json")
    return table if results.name in _SPOKEN_OF and _images(table) else None


def _images(table: Path) -> list[dict[str, Any]]:
    """What ``dsctool predict`` wrote; nothing where there is no such file, or it is of another kind."""
    content = read_json(table) if table.is_file() else None
    images = content.get("images") if isinstance(content, dict) and set(content) == {"images", "categories"} else None
    entries = images if isinstance(images, list) else []
    return entries if all(map(_is_ours, entries)) else []


def _is_ours(entry: object) -> bool:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        return False
    return isinstance(entry["id"], int | str) and isinstance(entry["file_name"], str)


def _same(image: Mapping[str, Any], theirs: ImageInfo, *, with_folders: bool) -> bool:
    """What the ground truth does not say is the same."""
    if theirs.file_name:
        ours, other = PurePath(image["file_name"]).parts, PurePath(theirs.file_name).parts
        shared = min(len(ours), len(other)) if with_folders else 1
        if ours[-shared:] != other[-shared:]:
            return False
    return (theirs.height, theirs.width) in ((0, 0), (image["height"], image["width"]))


def _shown(image: Mapping[str, Any]) -> str:
    return f"{image.get('file_name')} ({image.get('width')} x {image.get('height')})"
