"""COCO results as columns. What is certainly in order is recognised many at once; the rest is looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from dsctool.cores import without_collection
from dsctool.data.records import LARGEST_NUMBER, json_kind
from dsctool.data.segmentations import strays
from dsctool.data.shapes import Floats, compressed, drawn
from dsctool.entries import Entries
from dsctool.errors import DataError
from dsctool.rle import Bools, Ints, PackedRles, RunSums, decompress_runs, sum_runs
from dsctool.terms import Size

_CHUNK = 20_000  # results that are Python objects at one time
_THREADS = 2  # that add up run lengths: more wait for Python's lock, which numpy takes between two steps


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
    starts = range(0, len(entries), _CHUNK)
    chunks = [_Chunk.read(entries, first, min(first + _CHUNK, len(entries)), reference) for first in starts]
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = list(pool.map(lambda chunk: sum_runs(chunk.text, chunk.length), chunks))
    for chunk, each in zip(chunks, sums, strict=True):
        for row in np.flatnonzero(~chunk.proved(each, reference)).tolist():
            index = chunk.first + row
            chunk.replace(row, checked_result(entries[index], f"{name}: result {index}", reference))
    return _joined(chunks, sums, reference, name)


def _joined(chunks: Sequence[_Chunk], sums: Sequence[RunSums], reference: Reference, name: str) -> Predictions:
    image, category, length = (
        np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(each, key) for each in chunks)])
        for key in ("image", "category", "length")
    )
    score = np.concatenate([np.zeros(0), *(each.score for each in chunks)])
    area = np.concatenate([np.zeros(0), *(each.area for each in sums)])
    boxes = np.concatenate([np.zeros((0, 4)), *(each.box for each in chunks)])
    start = np.cumsum(length) - length
    texts = [each.text for each in chunks]
    odd = {each.first + row: mask for each in chunks for row, mask in each.odd_masks.items()}
    if odd:  # masks of other forms come behind all others
        end = int(length.sum())
        for row, mask in odd.items():
            start[row], length[row] = end, len(mask)
            end += len(mask)
        packed = b"".join(odd.values())
        texts.append(np.frombuffer(packed, dtype=np.uint8))
        area[list(odd)] = [_foreground(mask) for mask in odd.values()]
    with_boxes = _all_or_none(
        np.concatenate([np.zeros(0, dtype=bool), *(~each.no_box for each in chunks)]), "bbox", name
    )
    with_masks = _all_or_none(length > 0, "segmentation", name)
    text = np.concatenate([np.zeros(0, dtype=np.uint8), *texts])
    masks = PackedRles(text, start, length, reference.sizes[image])
    return Predictions(
        name, image, category, score, boxes if with_boxes else None, *((masks, area) if with_masks else (None, None))
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
_NO_BOX = (0.0,) * 4


@dataclass(eq=False)
class _Chunk:
    """Results on their way into columns, from place ``first`` of the file on.

    odd_masks: texts of masks that were of other forms, by row.
    """

    first: int
    image: Ints
    category: Ints
    score: Floats
    no_box: Bools
    no_mask: Bools
    box: Floats
    size: Floats
    text: Any
    length: Ints
    odd_masks: dict[int, bytes]

    @classmethod
    def read(cls, entries: Entries, first: int, last: int, reference: Reference) -> _Chunk:
        """The results from place ``first`` to ``last``."""
        every = [each or _NOTHING for each in entries[first:last].typed(_Result)]
        images, categories, count = reference.images, reference.categories, len(every)
        runs = [each.segmentation if isinstance(each.segmentation, _Runs) else None for each in every]
        texts = [each.counts if each is not None else "" for each in runs]
        length = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        text = "".join(texts).encode(errors="replace")  # one byte a letter, or more of one that is no RLE
        if len(text) != length.sum():
            texts = [each if each.isascii() else "" for each in texts]
            length, text = np.asarray([len(each) for each in texts], dtype=np.int64), "".join(texts).encode()
        return cls(
            first=first,
            image=np.fromiter((images.get(each.image_id, -1) for each in every), dtype=np.int64, count=count),
            category=np.fromiter((categories.get(each.category_id, -1) for each in every), dtype=np.int64, count=count),
            score=np.fromiter((each.score for each in every), dtype=np.float64, count=count),
            no_box=np.asarray([not each.bbox for each in every], dtype=bool),
            no_mask=np.asarray([each is None for each in runs], dtype=bool),
            box=_table((each.bbox or _NO_BOX for each in every), 4, count),
            size=_table((each.size if each is not None else (0, 0) for each in runs), 2, count),
            text=np.frombuffer(text, dtype=np.uint8),
            length=length,
            odd_masks={},
        )

    def proved(self, sums: RunSums, reference: Reference) -> Bools:
        """``(n,)``: which results are certainly in order."""
        size = reference.sizes[self.image] if len(reference.sizes) else np.zeros((len(self.image), 2), dtype=np.int64)
        pixels = size[:, 0] * size[:, 1]
        fits = (self.size.reshape(-1, 2) == size).all(axis=1) & sums.formed & (sums.pixels == pixels) & (pixels > 0)
        whole = np.isfinite(self.score) & np.isfinite(self.box).all(axis=1)
        described = np.where(self.no_mask, ~self.no_box, fits)
        return (self.image >= 0) & (self.category >= 0) & whole & described

    def replace(self, row: int, result: CheckedResult) -> None:
        """Take a result that was checked alone."""
        self.image[row], self.category[row], self.score[row] = result.image, result.category, result.score
        self.no_box[row] = result.box is None
        self.box[row] = _NO_BOX if result.box is None else result.box
        self.odd_masks.pop(row, None)
        if result.mask is not None:
            self.odd_masks[row] = result.mask


def _table(rows: Iterable[Sequence[float]], columns: int, count: int) -> Floats:
    return np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=count * columns).reshape(count, columns)


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
