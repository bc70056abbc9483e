"""COCO results as columns. What is certainly in order is recognised many at once; the rest is looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from numbers import Real
from operator import not_
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray

from dsctool.cores import on_all_cores, shared_bytes, without_collection
from dsctool.data.records import LARGEST_NUMBER, json_kind
from dsctool.data.segmentations import strays
from dsctool.data.shapes import Floats, compressed, drawn
from dsctool.entries import Entries
from dsctool.errors import DataError
from dsctool.rle import Bools, Bytes, Ints, PackedRles, RunSums, decompress_runs, sum_runs
from dsctool.terms import Size

_CHUNK = 4_000  # results that are Python objects at one time, in each process


@dataclass(frozen=True)
class Reference:
    """What results are about. name: the file, for messages. images, categories: places by id. sizes: of the images,
    ``(images, 2)``, 0 where the file has none."""

    name: str
    images: Mapping[Any, int]
    categories: Mapping[Any, int]
    sizes: Ints


@dataclass(frozen=True, eq=False)
class Predictions:
    """COCO results: ``n`` rows, as in the file.

    image, category: ``(n,)``, places in the ground truth. score: ``(n,)``. boxes: ``(n, 4)`` x, y, width, height, or
    None. masks: compressed RLE of the images' sizes with their ``areas`` ``(n,)``, or None. Of no results there are
    both.
    """

    name: str
    image: Ints
    category: Ints
    score: Floats
    boxes: Floats | None
    masks: PackedRles | None
    areas: Floats | None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def has_masks(self) -> bool:
        """Whether there are results with masks."""
        return len(self) > 0 and self.masks is not None


@without_collection()
def read_predictions(entries: Entries, reference: Reference, name: str) -> Predictions:
    """Check and read all results; ``DataError`` names the first one that is wrong."""
    place = np.cumsum(np.append(0, entries.lengths(_letters)))  # the text of a mask is no longer than its entry
    text = shared_bytes(int(place[-1]))

    def read(part: slice) -> list[_Chunk]:
        edges = range(part.start, part.stop, _CHUNK)
        slices = [slice(first, min(first + _CHUNK, part.stop)) for first in edges]
        return [_Chunk.read(entries, each, text[place[each.start] : place[each.stop]], reference) for each in slices]

    chunks = list(chain.from_iterable(on_all_cores(read, len(entries))))
    for chunk in chunks:
        chunk.start += place[chunk.first]
        for row in np.flatnonzero(~chunk.proved).tolist():
            index = chunk.first + row
            chunk.replace(row, checked_result(entries[index], f"{name}: result {index}", reference))
    return _joined(chunks, text, reference, name)


def _joined(chunks: Sequence[_Chunk], text: Bytes, reference: Reference, name: str) -> Predictions:
    def column(key: str, empty: NDArray[Any]) -> Any:
        return np.concatenate([empty, *(getattr(each, key) for each in chunks)])

    ints, floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    image, category, start, length = (column(key, ints) for key in ("image", "category", "start", "length"))
    area = column("area", floats)
    odd = {each.first + row: mask for each in chunks for row, mask in each.odd_masks.items()}
    if odd:  # masks of other forms come behind all others
        end = len(text)
        for row, mask in odd.items():
            start[row], length[row] = end, len(mask)
            end += len(mask)
        text = np.append(text, np.frombuffer(b"".join(odd.values()), dtype=np.uint8))
        area[list(odd)] = [_foreground(mask) for mask in odd.values()]
    with_boxes = _all_or_none(~column("no_box", np.zeros(0, dtype=bool)), "bbox", name)
    with_masks = _all_or_none(length > 0, "segmentation", name)
    return Predictions(
        name=name,
        image=image,
        category=category,
        score=column("score", floats),
        boxes=column("box", np.zeros((0, 4))) if with_boxes else None,
        masks=PackedRles(text, start, length, reference.sizes[image]) if with_masks else None,
        areas=area if with_masks else None,
    )


def _foreground(text: bytes) -> int:
    runs = decompress_runs(text)
    assert runs is not None
    return int(runs[1::2].sum())


def _all_or_none(having: Bools, key: str, name: str) -> bool:
    if having.any() and not having.all():
        with_key, without = int(having.argmax()), int((~having).argmax())
        raise DataError(
            f"{name}: result {with_key} has a {key!r}, result {without} has none: give all of them one, or none"
        )
    return not len(having) or bool(having[0])


# --- many at once -----------------------------------------------------------------------------------


_Side = Annotated[int, Meta(ge=0, le=int(LARGEST_NUMBER))]


class _Runs(msgspec.Struct, gc=False):
    size: tuple[_Side, _Side]
    counts: str


class _Result(msgspec.Struct, gc=False):
    """A result that may well be in order."""

    image_id: int | str
    category_id: int | str
    score: float
    bbox: tuple[float, float, float, float] | UnsetType | None = UNSET
    segmentation: _Runs | UnsetType | None = UNSET


_NOTHING = _Result(image_id="", category_id="", score=0.0)
_NO_RUNS = _Runs(size=(0, 0), counts="")
_NO_BOX = (0.0,) * 4


@dataclass(eq=False)
class _Chunk:
    """Results on their way into columns, from place ``first`` of the file on.

    proved: ``(n,)``, which ones are certainly in order. start, length: ``(n,)``, of the texts of masks. odd_masks:
    texts of masks that were of other forms, by row.
    """

    first: int
    proved: Bools
    image: Ints
    category: Ints
    score: Floats
    no_box: Bools
    box: Floats
    start: Ints
    length: Ints
    area: Floats
    odd_masks: dict[int, bytes]

    @classmethod
    def read(cls, entries: Entries, part: slice, text: Bytes, reference: Reference) -> _Chunk:
        """The results of a slice; the texts of their masks go into ``text``, one after the other from its start."""
        every = [each or _NOTHING for each in entries[part].typed(_Result)]
        count = len(every)
        images, categories, scores, boxes, masks = zip(*map(astuple, every), strict=True)
        image = np.fromiter(map(reference.images.get, images, repeat(-1)), np.int64, count)
        category = np.fromiter(map(reference.categories.get, categories, repeat(-1)), np.int64, count)
        score = np.fromiter(scores, np.float64, count)
        no_box = np.fromiter(map(not_, boxes), np.bool_, count)
        box = _table([each or _NO_BOX for each in boxes] if no_box.any() else boxes, 4)
        no_mask = np.fromiter(map(not_, masks), np.bool_, count)
        sizes, texts = zip(*map(astuple, [each or _NO_RUNS for each in masks] if no_mask.any() else masks), strict=True)
        length, packed = _packed(texts)
        text[: len(packed)] = packed
        sums = sum_runs(packed, length)
        described = np.where(no_mask, ~no_box, _fits(_table(sizes, 2), sums, image, reference))
        whole = np.isfinite(score) & np.isfinite(box).all(axis=1)
        return cls(
            first=part.start,
            proved=(image >= 0) & (category >= 0) & whole & described,
            image=image,
            category=category,
            score=score,
            no_box=no_box,
            box=box,
            start=np.cumsum(length) - length,
            length=length,
            area=sums.area.astype(np.float64),
            odd_masks={},
        )

    def replace(self, row: int, result: CheckedResult) -> None:
        """Take a result that was checked alone."""
        self.image[row], self.category[row], self.score[row] = result.image, result.category, result.score
        self.no_box[row] = result.box is None
        self.box[row] = _NO_BOX if result.box is None else result.box
        self.odd_masks.pop(row, None)
        if result.mask is not None:
            self.odd_masks[row] = result.mask


def _letters(entry: object) -> int:
    """Of the text of a mask."""
    segmentation = entry.get("segmentation") if isinstance(entry, Mapping) else None
    counts = segmentation.get("counts") if isinstance(segmentation, Mapping) else None
    return len(counts) if isinstance(counts, str) else 0


def _packed(texts: Sequence[str]) -> tuple[Ints, Bytes]:
    """The length of each text, 0 for those that are no RLE, and the others in one buffer."""
    text = "".join(texts)
    if not text.isascii():
        texts = [each if each.isascii() else "" for each in texts]
        text = "".join(texts)
    return np.fromiter(map(len, texts), np.int64, len(texts)), np.frombuffer(text.encode(), dtype=np.uint8)


def _fits(size: Floats, sums: RunSums, image: Ints, reference: Reference) -> Bools:
    """``(n,)``: which masks have the sizes of their images, and runs that fill them."""
    if not len(reference.sizes):
        return np.zeros(len(image), dtype=bool)
    sides = reference.sizes[image]
    pixels = sides[:, 0] * sides[:, 1]
    return (size == sides).all(axis=1) & sums.formed & (sums.pixels == pixels) & (pixels > 0)


def _table(rows: Sequence[Sequence[float]], columns: int) -> Floats:
    count = len(rows) * columns
    return np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=count).reshape(-1, columns)


# --- one by one -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckedResult:
    """One faultless result. mask: RLE text."""

    image: int
    category: int
    score: float
    box: Sequence[float] | None
    mask: bytes | None


def checked_result(entry: object, where: str, reference: Reference) -> CheckedResult:
    """A result; ``DataError`` begins with ``where``."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is {json_kind(entry)}, not an object")
    for key in ("image_id", "category_id", "score"):
        if key not in entry:
            raise DataError(f"{where} has no {key!r}")
    if not _is_number(entry["score"]):
        raise DataError(f"{where}: score is {entry['score']!r}, not a finite number")
    for key, known, what in (
        ("image_id", reference.images, "image"),
        ("category_id", reference.categories, "category"),
    ):
        if not _is_known(entry[key], known):
            raise DataError(f"{where}: {what} id {entry[key]!r} is not in {reference.name}")
    box = mask = None
    if _given(entry, "bbox"):
        _check_box(entry["bbox"], where)
        box = [float(value) for value in entry["bbox"]]
    if _given(entry, "segmentation"):
        mask = _compressed(entry["segmentation"], entry["image_id"], where, reference)
    if box is None and mask is None:
        raise DataError(f"{where} has neither a 'bbox' nor a 'segmentation'")
    image, category = reference.images[entry["image_id"]], reference.categories[entry["category_id"]]
    return CheckedResult(image, category, float(entry["score"]), box, mask)


def _is_known(value: object, known: Mapping[Any, int]) -> bool:
    try:
        return not isinstance(value, bool) and value in known  # True is 1 for Python
    except TypeError:  # not hashable
        return False


def _given(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key)
    return value is not None and not (isinstance(value, Sequence) and len(value) == 0)


def _is_number(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's integers have no end
        return False


def _check_box(box: object, where: str) -> None:
    values = list(box) if isinstance(box, Iterable) and not isinstance(box, str | Mapping) else []
    if len(values) != 4 or not all(_is_number(value) for value in values):
        raise DataError(f"{where}: bbox is {box!r}, not four finite numbers [x, y, width, height]")


def _compressed(segmentation: object, image_id: Hashable, where: str, reference: Reference) -> bytes:
    """Polygons or either kind of RLE as the text of compressed RLE, as pycocotools converts them."""
    height, width = reference.sizes[reference.images[image_id]].tolist()
    if not height or not width:
        raise DataError(
            f"{reference.name}: image id {image_id} has no whole 'height' and 'width', which its masks need"
        )
    if isinstance(segmentation, Mapping):
        return _checked_rle(segmentation, (height, width), where)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise DataError(f"{where}: segmentation is {json_kind(segmentation)}, neither RLE nor polygons")
    return _polygons_as_rle(segmentation, (height, width), where)


def _polygons_as_rle(polygons: Sequence[Any], size: Size, where: str) -> bytes:
    for number, polygon in enumerate(polygons, start=1):
        numbers = isinstance(polygon, Sequence) and all(_is_number(value) for value in polygon)
        if not numbers or len(polygon) < 4 or len(polygon) % 2:
            short = str(polygon)[:60]
            raise DataError(f"{where}: a polygon is a list of x, y pairs of finite numbers, this is {short}")
        if number == 1 and len(polygon) < 6:  # pycocotools would take four numbers for a box
            raise DataError(f"{where}: polygon 1 has 2 points, fewer than 3")
        if strays(polygon, size):
            raise DataError(f"{where}: polygon {number} reaches far out of the image, {size[1]} x {size[0]} pixels")
    try:
        counts = drawn([list(polygon) for polygon in polygons], size)["counts"]
    except Exception as error:  # pycocotools raises no narrower one
        raise DataError(f"{where}: pycocotools cannot draw these polygons: {error}") from error
    return counts.encode() if isinstance(counts, str) else counts


def _checked_rle(rle: Mapping[str, Any], size: Size, where: str) -> bytes:
    """The text of RLE whose runs fill the image: with others pycocotools may never come back."""
    given = rle.get("size")
    if not isinstance(given, Sequence) or list(given) != list(size):
        raise DataError(f"{where}: RLE size is {given!r}, the image is {list(size)} (height, width)")
    runs = _runs(rle.get("counts"))
    if runs is None or len(runs) == 0 or runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise DataError(f"{where}: RLE counts do not describe {size[0]} x {size[1]} pixels")
    return compressed({"counts": rle["counts"] if isinstance(rle["counts"], str | bytes) else runs.tolist()}, size)


def _runs(counts: object) -> Ints | None:
    """Lengths of the runs, or None where ``counts`` is no encoding at all."""
    if isinstance(counts, str | bytes):
        return decompress_runs(counts)
    if isinstance(counts, Sequence) and all(_is_number(count) and abs(count) <= LARGEST_NUMBER for count in counts):
        return np.asarray(counts, dtype=np.int64)
    return None
