"""What is written about an image's switch maps: the contact sheet, the maps, a picture per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

import numpy as np
from PIL import Image

from dsctool.data.pictures import Picture
from dsctool.files import whole_file
from dsctool.visualize.overlays import draw_results
from dsctool.visualize.switch.numbers import ImageNumbers, summarize
from dsctool.visualize.switch.record import SwitchRecord
from dsctool.visualize.switch.sheet import Sheet, picture_size, save_layer, save_sheet

if TYPE_CHECKING:
    from dsctool.coco_results import Result


def save_maps(target: Path, record: SwitchRecord) -> None:
    """Write the maps by name as ``.npz``, whole or not at all, with ``image_size`` and ``input_size`` as ``[h, w]``.

    Cell ``[i, j]`` of a map of stage ``k`` belongs to pixel ``(i * s, j * s)`` of the image at ``input_size``, where
    ``s`` is ``2 ** (k + 1)``.
    """
    sizes = {"image_size": record.image_size, "input_size": record.maps[0].input_size}
    arrays = {each.name: each.values for each in record.maps}
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays, **{key: np.asarray(sizes[key]) for key in sizes})


def holds_maps(path: Path) -> bool:
    """Whether there is a file that :func:`save_maps` wrote."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as file:
        return {"image_size.npy", "input_size.npy"} <= set(file.namelist())


def save_layers(folder: Path, record: SwitchRecord, *, stretch: bool) -> None:
    """Write a picture of every map to ``folder``, named after its layer; ``stretch`` draws it over its own range."""
    for each in record.maps:
        save_layer(folder / f"{each.name}.png", each, record.image_size, stretch=stretch)


def save_contact_sheet(
    target: Path,
    record: SwitchRecord,
    *,
    picture: Picture,
    found: Sequence[Result],
    names: Mapping[int, str],
    numbers: ImageNumbers,
    objects: str,
    stretch: bool,
) -> None:
    """Write the contact sheet of one image.

    picture: what was looked at. found: the detections to draw. names: of the categories, by id.
    numbers: of this image, over objects that are called ``objects``. stretch: draw every map over its own range.
    """
    pixels = Image.fromarray(picture.shown.permute(1, 2, 0).numpy())
    height, width = picture_size(record.image_size)
    small = pixels.resize((width, height), Image.Resampling.LANCZOS)
    sheet = Sheet(
        title=f"{picture.file.path.name}, {record.image_size[1]} x {record.image_size[0]} pixels",
        maps=record.maps,
        image=small,
        overlay=draw_results(small, found, names, size=record.image_size),
        summary=summarize([numbers]),
        objects=objects,
        stretch=stretch,
    )
    save_sheet(target, sheet)
