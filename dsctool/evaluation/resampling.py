"""What results are worth on the images, and on images drawn anew: the table's numbers, and AP where things crowd."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dsctool.cores import on_all_cores
from dsctool.errors import DataError
from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.huddle.matched import ranking_of
from dsctool.evaluation.huddle.measuring import Bootstrap
from dsctool.evaluation.huddle.study import T_O, T_P
from dsctool.evaluation.huddle.subsets import images_of_cell
from dsctool.evaluation.matching import IOU_THRESHOLDS
from dsctool.evaluation.overlaps import largest_overlaps
from dsctool.evaluation.precision import Curves, mean_precision
from dsctool.evaluation.protocol import COCO_AREAS
from dsctool.evaluation.tables import Bools, Floats, Ints
from dsctool.files import whole_file
from dsctool.terms import KINDS

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_WORTH = 16  # samples, below which a process costs more than it saves


@dataclass(frozen=True, eq=False)
class Measured:
    """AP from 0 to 1 of one file of results; NaN where there is nothing to find, or no masks. Kinds: boxes, masks.

    values: ``(kinds, numbers)``, :data:`NUMBERS`. drawn: ``(samples, kinds, numbers)``, of images drawn with
    replacement. cells: ``(kinds, T_O, T_P)``, of the subsets of :mod:`dsctool.evaluation.huddle`, by overlaps of boxes;
    drawn_cells: ``(samples, kinds, T_O, T_P)``, of what of the same draws lies in them. images: ``(T_O, T_P)``, how
    many each has. key: of ground truth and draws; only what has the same can be compared.
    """

    values: Floats
    drawn: Floats
    cells: Floats
    drawn_cells: Floats
    images: Ints
    key: str

    def save(self, path: Path) -> None:
        """To a NumPy archive, whole or not at all."""
        arrays: dict[str, Any] = {each.name: np.asarray(getattr(self, each.name)) for each in fields(self)}
        with whole_file(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises DataError where the file is none that :meth:`save` made."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {each.name: arrays[each.name] for each in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{path}: holds no measured results ({error}); remove it, and it is made anew") from None
        return cls(**(values | {"key": str(values["key"])}))


def measure(comparison: Comparison, bootstrap: Bootstrap) -> Measured:
    """All numbers of some results."""
    truth = comparison.truth
    overlaps = largest_overlaps(truth, "box", same_class=False)
    subsets = np.stack([[images_of_cell(truth, overlaps, t_o, t_p) for t_p in T_P] for t_o in T_O])
    part = _Part(comparison, subsets, bootstrap)
    once = part.of(np.ones((1, len(truth.images)), dtype=np.int32))
    parts = on_all_cores(part, bootstrap.samples, worth=_WORTH) if bootstrap.samples else [part(slice(0, 0))]
    drawn, drawn_cells = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Measured(once[0][0], drawn, once[1][0], drawn_cells, subsets.sum(axis=2), _key(comparison, bootstrap))


class _Part:
    """Measures some of the draws."""

    def __init__(self, comparison: Comparison, subsets: Bools, bootstrap: Bootstrap) -> None:
        self._kinds = len(comparison.kinds)
        self._images = len(comparison.truth.images)
        self._bootstrap = bootstrap
        everything = comparison.everything
        views = [everything, *(comparison.of_area(area) for area in COCO_AREAS)]
        self._curves = Curves(ranking_of(comparison, views))
        ranking = ranking_of(comparison, [everything])
        flat = subsets.reshape(-1, self._images)
        self._unique, self._place = np.unique(flat, axis=0, return_inverse=True)
        self._cells = [Curves(ranking.of_images(images)) if images.any() else None for images in self._unique]
        self._shape = subsets.shape[:2]

    def __call__(self, part: slice) -> tuple[Floats, Floats]:
        if part.start == part.stop:
            return self.of(np.zeros((0, self._images), dtype=np.int32))
        return self.of(self._bootstrap.weights(self._images, part))

    def of(self, weights: NDArray[np.integer]) -> tuple[Floats, Floats]:
        """``(b, kinds, numbers)`` and ``(b, kinds, T_O, T_P)`` for ``(b, images)`` weights."""
        count = len(weights)
        numbers = np.full((count, len(KINDS), len(NUMBERS)), np.nan)
        cells = np.full((count, len(KINDS), len(self._unique)), np.nan)
        if not count:
            return numbers, cells[:, :, self._place.ravel()].reshape(count, len(KINDS), *self._shape)
        values = np.stack(np.split(self._curves.average_precision(weights), self._kinds, axis=1), axis=1)
        every = values[:, :, 0]
        chosen = [every, every[:, :, IOU_THRESHOLDS == 0.5], every[:, :, IOU_THRESHOLDS == 0.75]]
        means = [mean_precision(each) for each in (*chosen, *np.moveaxis(values[:, :, 1:], 2, 0))]
        numbers[:, : self._kinds] = np.stack(means, axis=2)
        for place, (images, curves) in enumerate(zip(self._unique, self._cells, strict=True)):
            if curves is not None:
                cells[:, : self._kinds, place] = mean_precision(curves.average_precision(weights[:, images]))
        shaped = cells[:, :, self._place.ravel()].reshape(count, len(KINDS), *self._shape)
        return np.where(numbers < 0, np.nan, numbers), np.where(shaped < 0, np.nan, shaped)


def _key(comparison: Comparison, bootstrap: Bootstrap) -> str:
    """Of the images, their instances, and what is drawn of them."""
    truth = comparison.truth
    digest = hashlib.sha256(repr((bootstrap.samples, bootstrap.seed, [str(each) for each in truth.images])).encode())
    digest.update(np.ascontiguousarray(truth.boxes).tobytes())
    digest.update(np.ascontiguousarray(truth.category).tobytes())
    return digest.hexdigest()[:16]


def stacked(measured: Sequence[Measured]) -> tuple[Floats, Floats, Floats, Floats]:
    """``values``, ``drawn``, ``cells`` and ``drawn_cells`` of several, with an axis of theirs in front.

    Raises:
        DataError: they are of different ground truth or draws.
    """
    if len({each.key for each in measured}) > 1:
        raise DataError("results that were measured on different images cannot be compared; measure them anew")
    values, drawn, cells, drawn_cells = (
        np.stack([getattr(each, name) for each in measured]) for name in ("values", "drawn", "cells", "drawn_cells")
    )
    return values, drawn, cells, drawn_cells
