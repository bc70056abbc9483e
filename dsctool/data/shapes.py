"""Segmentations of many annotations as flat arrays, which processes can share; drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.cores import on_all_cores
from dsctool.data.segmentations import is_stray
from dsctool.rle import Bytes, Ints, PackedRles, Rle
from dsctool.terms import Size

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shapes:
    """Faultless segmentations of ``m`` annotations; each has polygons, or a run-length text, or nothing.

    points: x and y in turn, in pixels, of ``q`` polygons. point, points_of: ``(q,)``, where each polygon begins in
    ``points``, and how many numbers it has. polygon, polygons_of: ``(m,)``, the first polygon of each annotation, and
    how many it has. text: run-length texts. letter, letters_of: ``(m,)``, where each begins in ``text``, and how long
    it is.
    """

    points: Floats
    point: Ints
    points_of: Ints
    polygon: Ints
    polygons_of: Ints
    text: Bytes
    letter: Ints
    letters_of: Ints

    def __len__(self) -> int:
        return len(self.polygon)

    @classmethod
    def of(cls, drawings: Sequence[Sequence[Sequence[float]]], texts: Sequence[bytes]) -> Self:
        """Polygons and texts per annotation; one of the two is empty, or both."""
        polygons = list(chain.from_iterable(drawings))
        points_of, polygons_of, letters_of = (_lengths(values) for values in (polygons, drawings, texts))
        points = np.fromiter(chain.from_iterable(polygons), dtype=np.float64, count=int(points_of.sum()))
        text = np.frombuffer(b"".join(texts), dtype=np.uint8)
        return cls(
            points,
            _starts(points_of),
            points_of,
            _starts(polygons_of),
            polygons_of,
            text,
            _starts(letters_of),
            letters_of,
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        if not parts:
            return cls.of([], [])
        names = [each.name for each in fields(cls)]
        counted = {"point": "points", "polygon": "point", "letter": "text"}  # what the numbers are places of
        lengths = {name: np.cumsum([0, *(len(getattr(part, of)) for part in parts)]) for name, of in counted.items()}
        columns = {name: [getattr(part, name) for part in parts] for name in names}
        for name, offsets in lengths.items():
            columns[name] = [column + offset for column, offset in zip(columns[name], offsets[:-1], strict=True)]
        return cls(**{name: np.concatenate(column) for name, column in columns.items()})

    def take(self, rows: Ints | NDArray[np.bool_]) -> Self:
        """The segmentations of these rows; polygons and texts are shared."""
        by_row = ("polygon", "polygons_of", "letter", "letters_of")
        return replace(self, **{name: getattr(self, name)[rows] for name in by_row})

    @property
    def given(self) -> NDArray[np.bool_]:
        """``(m,)``: which annotations have a segmentation."""
        return (self.polygons_of > 0) | (self.letters_of > 0)

    def rle(self, row: int, size: Size) -> Rle:
        """The mask of an annotation that has one, as pycocotools draws it. size: of the image."""
        if self.letters_of[row]:
            return Rle(size=list(size), counts=_part(self.text, self.letter, self.letters_of, row).tobytes())
        first, count = int(self.polygon[row]), int(self.polygons_of[row])
        outlines = [
            _part(self.points, self.point, self.points_of, each).tolist() for each in range(first, first + count)
        ]
        return drawn(outlines, size)

    def bitmap(self, row: int, size: Size) -> NDArray[np.uint8]:
        """The same as a bitmap ``(h, w)`` of 0 and 1."""
        bitmap: NDArray[np.uint8] = coco_mask.decode(self.rle(row, size))
        return bitmap

    def rles(self, rows: Ints, sizes: Ints) -> PackedRles:
        """The masks of these rows. sizes: ``(rows, 2)``, of their images."""

        def drawn_ones(part: slice) -> PackedRles:
            pairs = zip(rows[part].tolist(), sizes[part].tolist(), strict=True)
            return PackedRles.pack([self.rle(row, (height, width)) for row, (height, width) in pairs])

        return PackedRles.join(on_all_cores(drawn_ones, len(rows)))


def drawn(polygons: list[list[float]], size: Size) -> Rle:
    """Polygons, each a list of x and y in turn, as one mask."""
    parts = coco_mask.frPyObjects(polygons, *size)
    rle: Rle = parts[0] if len(parts) == 1 else coco_mask.merge(parts)
    return rle


def drawing_of(segmentation: object, size: Size) -> tuple[list[list[float]], bytes]:
    """A faultless JSON value as :meth:`Shapes.of` takes it: polygons without stray parts, or a run-length text."""
    if isinstance(segmentation, Mapping):
        return [], compressed(segmentation, size)
    parts = segmentation if isinstance(segmentation, list | tuple) else []
    return [list(part) for part in parts if not is_stray(part)], b""


def compressed(rle: Mapping[str, Any], size: Size) -> bytes:
    """The text of a run-length encoding of either kind, as JSON has it; its runs fill an image of ``size``."""
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        return counts.encode() if isinstance(counts, str) else counts
    text: bytes = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
    return text


def _lengths(values: Sequence[Sequence[object]]) -> Ints:
    return np.fromiter(map(len, values), dtype=np.int64, count=len(values))


def _starts(lengths: Ints) -> Ints:
    starts: Ints = np.cumsum(lengths) - lengths
    return starts


def _part(values: NDArray[Any], start: Ints, length: Ints, row: int) -> NDArray[Any]:
    first = int(start[row])
    return values[first : first + int(length[row])]
