"""Whether results and ground truth mean the same images by the same ids.

``dsctool predict`` numbers images from 1 unless it is told their ids, and ``images.json`` beside its results says which
image has which number. Measured against ground truth with other numbers, such results would be worthless in silence.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import Any

from dsctool.errors import DataError
from dsctool.files import read_json

_KEYS = {"id", "file_name", "height", "width"}


def check_numbering(predictions: Path, images: Mapping[Hashable, Mapping[str, Any]], truth: str) -> None:
    """Refuse a results file beside which ``images.json`` names other images than the ground truth does.

    images: of the ground truth, by id. truth: its name, for messages. Names are compared without folders.

    Raises:
        DataError: an image has another name or size; the message says how it gets the ground truth's id.
    """
    table = predictions.with_name("images.json")
    for image in _images(table):
        theirs = images.get(image["id"])
        if theirs is None or not _same(image, theirs):
            other = "has no such image" if theirs is None else f"it is {_shown(theirs)}"
            raise DataError(
                f"{predictions}: its images have other numbers than those of {truth}: image {image['id']} is "
                f"{_shown(image)} by {table}, in the ground truth {other}. "
                f"Run dsctool predict with --images-json {truth}, which takes the ids from there."
            )


def _images(table: Path) -> list[dict[str, Any]]:
    """What ``dsctool predict`` wrote; nothing where there is no such file, or it is of another kind."""
    content = read_json(table) if table.is_file() else None
    images = content.get("images") if isinstance(content, dict) and set(content) == {"images", "categories"} else None
    entries = images if isinstance(images, list) else []
    return entries if all(isinstance(entry, dict) and set(entry) == _KEYS for entry in entries) else []


def _same(image: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    name = theirs.get("file_name")
    if isinstance(name, str) and PurePath(name).name != PurePath(image["file_name"]).name:
        return False
    return all(theirs.get(side) in (None, image[side]) for side in ("height", "width"))


def _shown(image: Mapping[str, Any]) -> str:
    name = PurePath(str(image.get("file_name"))).name
    return f"{name} ({image.get('width')} x {image.get('height')})"
