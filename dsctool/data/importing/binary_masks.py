"""One mask file for each instance: whatever is not black is the object."""

from __future__ import annotations

import re
from pathlib import Path

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images
from dsctool.data.importing.mask_files import MaskFile, pair_masks
from dsctool.data.importing.rasters import bitmap_rle, read_mask
from dsctool.data.importing.record import DEFAULT_CLASS, Found, Instance, Options, Picture
from dsctool.errors import DataError

_NO_CLASS = re.compile(r"mask|masks|instance|inst|object|obj|seg|cell_?mask|label|", re.IGNORECASE)


def read(source: Path, options: Options) -> Found:
    """Pictures with masks that are called after them (``x_cat_0.png``), or lie in a folder that is.

    The folder of the 2018 Data Science Bowl works as well: one for each picture, with ``images/`` and ``masks/``. A
    class is a folder's name, or the word between the picture's name and a number.

    Raises:
        DataError: masks and pictures do not fit together, or a mask has another size than its picture.
    """
    images = Images(source)
    pairs, notes = pair_masks(images, options, per_instance=True)
    pictures = []
    for pair in pairs:
        instances: list[Instance] = []
        size = None
        for mask, folder in pair.masks:
            inside = read_mask(mask.path)
            size = inside.shape if size is None else size
            if inside.shape != size:
                raise DataError(f"{mask.path}: is {inside.shape[1]} x {inside.shape[0]} pixels, other masks are not")
            name = options.class_name or folder or _class_of(mask, pair.path.stem) or DEFAULT_CLASS
            instances.append(Instance(name, str(mask.path), mask=bitmap_rle(inside)))
        pictures.append(
            Picture(pair.path, images.name(pair.path), image_size(pair.path, size), tuple(instances), pair.split)
        )
    return Found(pictures, notes=notes)


def _class_of(mask: MaskFile, stem: str) -> str | None:
    """The word in ``<stem>_<word>_<number>``."""
    if not mask.path.stem.startswith(stem):
        return None
    word = re.sub(r"[_\-. ]?\d+$", "", mask.path.stem[len(stem) :]).strip("_-. ")
    return None if _NO_CLASS.fullmatch(word) else word
