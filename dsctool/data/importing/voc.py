"""Pascal VOC with masks: a picture of the objects and one of the classes for each picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsctool.data.images import image_size
from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.rasters import Values, label_rles, read_values
from dsctool.data.importing.record import DEFAULT_CLASS, Found, Instance, Options, Picture
from dsctool.errors import DataError
from dsctool.files import read_bytes

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's own, from value 1 on."""
_VOID = 255  # in a palette; its colour is that of VOC's palette


def read(source: Path, options: Options) -> Found:
    """``SegmentationObject/`` and ``SegmentationClass/`` beside ``JPEGImages/``, as VOC and CVAT write them.

    An object's class is that of most of its pixels. Classes are named in ``labelmap.txt`` (``name:red,green,blue``, as
    CVAT writes it), and are VOC's twenty where there is none. Lists in ``ImageSets/Segmentation`` are the parts.
    Border pixels, value 255, belong to no object.

    Raises:
        DataError: a folder or file is missing, sizes differ, or a class's value has no name.
    """
    images = Images(source)
    folders = {path.parent for path in images.paths if path.parent.name == "SegmentationObject"}
    if not folders:
        raise DataError(f"{source}: no folder SegmentationObject with a mask for each picture")
    pictures: list[Picture] = []
    names: dict[int, str] = {}
    for folder in sorted(folders):
        root = folder.parent
        names = names | _names(root)
        parts = _parts(root)
        for path in images.paths:
            if path.parent == folder:
                pictures.append(_picture(path, root, images, names, parts, options))
    return Found(pictures, [] if options.class_name else list(dict.fromkeys(names.values())))


def _picture(
    objects: Path, root: Path, images: Images, names: dict[int, str], parts: dict[str, str], options: Options
) -> Picture:
    values = _values(objects)
    path = next(
        (found for found in images.paths if found.stem == objects.stem and found.parent == root / "JPEGImages"), None
    )
    if path is None:
        path = images.find(f"JPEGImages/{objects.stem}.jpg", near=root, where=objects)
    classes = _values(root / "SegmentationClass" / objects.name) if not options.class_name else None
    if classes is not None and classes.shape != values.shape:
        raise DataError(f"{root / 'SegmentationClass' / objects.name}: has not the size of {objects}")
    instances = []
    for value, rle in label_rles(values).items():
        where = f"{objects}: value {value}"
        name = options.class_name or DEFAULT_CLASS
        if classes is not None:
            seen, counts = np.unique(classes[values == value], return_counts=True)
            counts[seen == 0] = 0
            if not counts.any():
                raise DataError(f"{where}: has no class in SegmentationClass/{objects.name}")
            code = int(seen[np.argmax(counts)])
            if code not in names:
                raise DataError(f"{where}: its class {code} has no name: add it to {root / 'labelmap.txt'}")
            name = names[code]
        instances.append(Instance(name, where, mask=rle))
    size = image_size(path, (values.shape[0], values.shape[1]))
    split = parts.get(objects.stem) or split_in(*root.relative_to(images.root).parts)
    return Picture(path, images.name(path), size, tuple(instances), split)


def _values(path: Path) -> Values:
    """As stored, with colours of VOC's palette as their indices, and 0 for border pixels."""
    values = read_values(path)
    for colour in np.unique(values[values > 255]).tolist():
        values[values == colour] = _INDEX.get(colour, colour)
    values[values == _VOID] = 0
    return values


def _colour(index: int) -> int:
    """Of an entry of VOC's palette: red + 256 green + 65,536 blue; its bits go to the three in turn."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return channels[0] + 256 * channels[1] + 65_536 * channels[2]


_INDEX = {_colour(index): index for index in range(256)}


def _names(root: Path) -> dict[int, str]:
    """Classes by value."""
    file = root / "labelmap.txt"
    if not file.is_file():
        return dict(enumerate(CLASSES, start=1))
    names: dict[int, str] = {}
    for number, line in enumerate(read_bytes(file).decode().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.split(":")[0].split(","))
        except ValueError:
            raise DataError(f"{file}: line {number}: must be name:red,green,blue:...") from None
        colour = red + 256 * green + 65_536 * blue
        codes = {_INDEX.get(colour, colour)} | ({red} if red == green == blue else set())  # in colours, or all grey
        names |= {code: name.strip() for code in codes if code and name.strip() != "background"}
    return names


def _parts(root: Path) -> dict[str, str]:
    """Train, val or test by stem."""
    parts: dict[str, str] = {}
    lists = root / "ImageSets" / "Segmentation"
    for file in files_below(lists) if lists.is_dir() else ():
        split = split_in(file.stem) if file.stem != "trainval" else None
        if file.suffix == ".txt" and split:
            parts |= {line.split()[0]: split for line in read_bytes(file).decode().splitlines() if line.strip()}
    return parts
