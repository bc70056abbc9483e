"""COCO's panoptic format: a JSON file, and beside it a folder of PNGs that say of every pixel whose it is.

The folder is called as the file without ``.json``. A PNG is RGB: a pixel's id is ``R + 256 G + 65536 B``, and 0 is
*void*, which belongs to nothing. Ids are of one image only. Results need no more than the ids and categories of the
segments, and the names of the PNGs.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsctool.cores import without_collection
from dsctool.data.decoding import decoding
from dsctool.data.faults import Fault
from dsctool.data.panoptic_rules import (
    LARGEST_SEGMENT,
    VOID,
    ImageId,
    category_problems,
    entry_problems,
    is_image_id,
    name_problem,
    segments_problems,
    shown,
)
from dsctool.data.records import AnnotationFile, ImageInfo, annotation_file
from dsctool.data.rules import Needs, check_categories, check_images, known_size
from dsctool.entries import read_lists
from dsctool.errors import DataError
from dsctool.files import whole_file
from dsctool.terms import Size

Ids = NDArray[np.int32]
"""``(h, w)``: the segment of every pixel."""


@dataclass(frozen=True, slots=True)
class PanopticCategory:
    """A class of things, which can be counted, or of stuff. color: RGB for pictures, black where a file has none."""

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int] = (0, 0, 0)
    supercategory: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A thing, the stuff of one category, or a crowd of things.

    area: in pixels, as the file has it; None in results. bbox: x, y, width, height in pixels, where the file has it.
    """

    id: int
    category_id: int
    area: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class PanopticImage:
    """The segments of an image. file_name: its PNG in the file's folder. size: ``(h, w)`` where the file has it."""

    image_id: ImageId
    file_name: str
    segments: tuple[Segment, ...]
    size: Size | None = None


@dataclass(frozen=True)
class PanopticFile:
    """A panoptic JSON file.

    categories: by ascending id. images: by id, those that pictures need (empty where the file has no such list).
    entries: by image id, in the order of the file.
    """

    path: Path
    categories: tuple[PanopticCategory, ...]
    images: Mapping[ImageId, ImageInfo]
    entries: Mapping[ImageId, PanopticImage]

    @property
    def folder(self) -> Path:
        """Where the PNGs lie."""
        return png_folder(self.path)

    def ids(self, entry: PanopticImage) -> Ids:
        """``(h, w)``: the ids in an entry's PNG, decoded now.

        Raises:
            DataError: as :func:`read_ids`; the message also says which image it is.
        """
        try:
            return read_ids(self.folder / entry.file_name, entry.size)
        except DataError as error:
            raise DataError(f"{error} (image {entry.image_id} of {self.path})") from None


def png_folder(path: Path) -> Path:
    """The folder of PNGs that belongs to a panoptic JSON file; DataError where its name has no ``.json``."""
    if path.suffix != ".json":
        raise DataError(f"{path}: the name of a panoptic file ends in .json, and its folder of PNGs is called the same")
    return path.with_suffix("")


# --- reading ----------------------------------------------------------------------------------------

_NEEDS = Needs(masks=False, pictures=False)


def read_panoptic(path: Path, *, results: bool = False) -> PanopticFile:
    """Read a panoptic JSON file; PNGs are not looked at.

    results: only the annotations are read, and of their segments only id and category. Else every segment needs an
    area, and its category must be in the file.

    Raises:
        DataError: the file is missing or no JSON, or lacks a key; the message names file, image id and key.
    """
    png_folder(path)
    needed = ("annotations",) if results else ("annotations", "categories")
    file = annotation_file(read_lists(path, ("images", "annotations", "categories")), path, needed=needed)
    categories, images = ((), {}) if results else (_categories(file), _images(file))
    known = None if results else {category.id for category in categories}
    entries: dict[ImageId, PanopticImage] = {}
    with without_collection():
        for index, item in enumerate(file.annotations):
            for message in entry_problems(item, None if results or not images else images):
                raise _fault(file, item, index, message)
            if item["image_id"] in entries:
                raise _fault(file, item, index, "duplicate image: an earlier entry of annotations has it too")
            for message in segments_problems(item["segments_info"], known):
                raise _fault(file, item, index, message)
            info = images.get(item["image_id"])
            size = info.size if info is not None and info.height else None
            segments = tuple(_segment(segment, results) for segment in item["segments_info"])
            entries[item["image_id"]] = PanopticImage(item["image_id"], item["file_name"], segments, size)
    return PanopticFile(path, categories, images, entries)


def _fault(file: AnnotationFile, item: object, index: int, message: str) -> DataError:
    image = item.get("image_id") if isinstance(item, Mapping) else None
    if not is_image_id(image):
        return DataError(f"{file.path}: annotations[{index}]: {message}")
    return DataError(str(Fault(file.path, "image", image, index, "panoptic", message)))


def _categories(file: AnnotationFile) -> tuple[PanopticCategory, ...]:
    checked = check_categories(file, _NEEDS)
    for fault in checked.faults:
        if fault.severity == "error":
            raise DataError(str(fault))
    for id_, entry in checked.by_id.items():
        for message in category_problems(entry):
            raise DataError(str(Fault(file.path, "category", id_, checked.places[id_], "panoptic", message)))
    return tuple(_category(checked.by_id[id_]) for id_ in sorted(checked.by_id))


def _category(entry: Mapping[str, Any]) -> PanopticCategory:
    red, green, blue = entry.get("color") or (0, 0, 0)
    name, above = entry.get("name") or str(entry["id"]), entry.get("supercategory") or ""
    return PanopticCategory(entry["id"], name, bool(entry["isthing"]), (red, green, blue), above)


def _images(file: AnnotationFile) -> dict[ImageId, ImageInfo]:
    checked = check_images(file, _NEEDS)
    for fault in checked.faults:
        if fault.severity == "error" and fault.kind != "no images":
            raise DataError(str(fault))
    images = {}
    for id_, entry in checked.by_id.items():
        height, width = known_size(entry) or (0, 0)
        images[id_] = ImageInfo(id_, str(entry.get("file_name", "")), width, height)
    return images


def _segment(item: Mapping[str, Any], results: bool) -> Segment:
    if results:
        return Segment(item["id"], item["category_id"])
    box = item.get("bbox")
    return Segment(
        item["id"], item["category_id"], item["area"], None if box is None else tuple(box), bool(item.get("iscrowd"))
    )


# --- PNGs -------------------------------------------------------------------------------------------


def read_ids(path: Path, size: Size | None = None) -> Ids:
    """``(h, w)``: the ids in a panoptic PNG.

    size: ``(h, w)`` that it should have.

    Raises:
        DataError: the file is missing, broken, not an RGB PNG, or of another size.
    """
    with decoding(path), Image.open(path) as image:
        image.load()
        if (image.format, image.mode) != ("PNG", "RGB"):
            raise DataError(
                f"{path}: a panoptic map is a PNG of the kind RGB, this is {image.format} of the kind {image.mode}"
            )
        pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<i4").reshape(image.height, image.width)
    if size is not None and pixels.shape != size:
        height, width = pixels.shape
        raise DataError(f"{path}: is {width} x {height} pixels, should be {size[1]} x {size[0]} (width x height)")
    return (pixels & LARGEST_SEGMENT).astype(np.int32, copy=False)


def write_ids(path: Path, ids: NDArray[np.integer[Any]]) -> None:
    """Write ids, ``(h, w)`` from 0 to :data:`LARGEST_SEGMENT`, as a panoptic PNG, whole or not at all."""
    with whole_file(path) as file:
        ids_picture(ids).save(file, "png")


def ids_picture(ids: NDArray[np.integer[Any]]) -> Image.Image:
    """Ids, ``(h, w)`` from 0 to :data:`LARGEST_SEGMENT`, as the picture that a panoptic PNG holds."""
    height, width = ids.shape
    return Image.frombytes("RGB", (width, height), ids.astype("<i4").tobytes(), "raw", "RGBX")


def run_starts(*maps: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """``(r,)``: where, row after row, a run of pixels begins in which every map has one id; all maps are ``(h, w)``.

    Maps are mostly runs: looking at these takes a tenth of the time that pixels would.
    """
    starts = np.zeros(maps[0].shape, dtype=np.bool_)
    starts[:, 0] = True
    for ids in maps:
        starts[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    return np.flatnonzero(starts)


def places_of(ids: NDArray[np.integer[Any]], segments: Sequence[int]) -> NDArray[np.int64]:
    """``(n,)``: for each id 0 where it is in no list, 1 for void, ``2 + i`` for the ``i``-th of ``segments``.

    segments: ids that differ, without 0.
    """
    listed = np.asarray([-1, VOID, *segments])
    order = listed.argsort()
    near = order[np.searchsorted(listed, ids, side="right", sorter=order) - 1]
    return np.where(listed[near] == ids, near, 0)


# --- writing ----------------------------------------------------------------------------------------


class PanopticWriter:
    """Writes panoptic results or ground truth: every image's PNG when it comes, and the JSON file last.

    >>> with PanopticWriter(Path("out/panoptic.json"), categories) as writer:
    ...     writer.add(285, "000000000285.jpg", ids, [(1, 23), (2, 193)])

    Files are whole or not there; the JSON file is there only when the block has ended without an error.
    """

    def __init__(self, path: Path, categories: Sequence[PanopticCategory]) -> None:
        """path: of the JSON file; its folder is made. A file that is there already is not written over.

        Raises:
            DataError: there is such a file, its name has no ``.json``, or two categories have one id.
        """
        self.path = path
        self.folder = png_folder(path)
        if path.exists():
            raise DataError(f"{path}: is there already; remove it with its folder of PNGs, or name another file")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._categories = {category.id: category for category in categories}
        if len(self._categories) < len(categories):
            raise DataError(f"{path}: two categories have one id")
        self._images: dict[ImageId, dict[str, object]] = {}
        self._annotations: list[dict[str, object]] = []
        self._pngs: set[str] = set()

    def add(
        self,
        image_id: ImageId,
        file_name: str,
        ids: NDArray[np.integer[Any]],
        segments: Sequence[tuple[int, int]],
        crowds: Container[int] = (),
    ) -> None:
        """Write an image's PNG now, and keep its entry.

        file_name: the image's; the PNG has the same with the suffix ``.png``. ids: ``(h, w)``, 0 where nothing is.
        segments: id and category id of each; one without pixels is left out, since the format has none. crowds: ids of
        those that are crowds. Areas and boxes are counted.

        Raises:
            DataError: a name that leads out of the folder or is taken, an image that was there, an id or a category
                that is unknown or occurs twice; the message names file, image and segment.
        """
        where = f"{self.path}: image {image_id}:"
        if (problem := name_problem(file_name)) is not None:
            raise DataError(f"{where} {problem}")
        png = str(PurePosixPath(file_name).with_suffix(".png"))
        if image_id in self._images:
            raise DataError(f"{where} is there already")
        if png.casefold() in self._pngs:
            raise DataError(f"{where} file_name {shown(file_name)}: another image has the PNG {png}")
        listed = [{"id": id_, "category_id": category} for id_, category in segments]
        unknown = (f"segment {id_}: unknown category: {each}" for id_, each in segments if each not in self._categories)
        for message in chain(segments_problems(listed, None), unknown):
            raise DataError(f"{where} {message}")
        infos = segment_entries(ids, segments, crowds, where=where)
        (self.folder / png).parent.mkdir(parents=True, exist_ok=True)
        write_ids(self.folder / png, ids)
        height, width = ids.shape
        self._pngs.add(png.casefold())
        self._images[image_id] = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        self._annotations.append({"image_id": image_id, "file_name": png, "segments_info": infos})

    def close(self) -> None:
        """Write the JSON file."""
        content = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": category_entries(list(self._categories.values())),
        }
        with whole_file(self.path) as file:
            file.write(json.dumps(content).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def category_entries(categories: Sequence[PanopticCategory]) -> list[dict[str, object]]:
    """The entries of a file's ``categories``."""
    return [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": category.supercategory,
            "isthing": int(category.is_thing),
            "color": list(category.color),
        }
        for category in categories
    ]


def segment_entries(
    ids: NDArray[np.integer[Any]], segments: Sequence[tuple[int, int]], crowds: Container[int] = (), *, where: str
) -> list[dict[str, object]]:
    """The entries of an image's ``segments_info``, areas and boxes counted, in the order of ``segments``.

    Arguments as for :meth:`PanopticWriter.add`; where: what errors begin with.
    """
    if ids.ndim != 2 or not ids.size:
        raise DataError(f"{where} ids must be (h, w), not {ids.shape}")
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < VOID or ids.max() > LARGEST_SEGMENT:
        raise DataError(f"{where} ids must be whole numbers from 0 to {LARGEST_SEGMENT}")
    width = ids.shape[1]
    starts = run_starts(ids)
    lengths = np.diff(starts, append=ids.size)
    rows, columns = np.divmod(starts, width)
    places = places_of(ids.ravel()[starts], [id_ for id_, _ in segments])
    if not places.all():
        raise DataError(
            f"{where} segment {ids.ravel()[starts][places == 0][0]} is in the pixels, and not in the list of segments"
        )
    infos: list[dict[str, object]] = []
    for place, (id_, category) in enumerate(segments, start=2):
        its = np.flatnonzero(places == place)
        if not len(its):
            continue
        left, top = columns[its].min(), rows[its[0]]
        right, bottom = (columns[its] + lengths[its]).max(), rows[its[-1]] + 1
        infos.append(
            {
                "id": int(id_),
                "category_id": int(category),
                "area": int(lengths[its].sum()),
                "bbox": [int(left), int(top), int(right - left), int(bottom - top)],
                "iscrowd": int(id_ in crowds),
            }
        )
    return infos
