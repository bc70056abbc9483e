"""Rows of an ablation beside each other: means over seeds, and differences to one of them, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dsctool.evaluation.resampling import NUMBERS, Measured, stacked
from dsctool.evaluation.seeds import Estimate, mean_of, paired_difference, unpaired_difference
from dsctool.evaluation.tables import Floats, Ints
from dsctool.terms import KINDS, Kind

Estimates = Mapping[Kind, Mapping[str, Estimate]]
"""By kind and number; AP from 0 to 1."""


@dataclass(frozen=True)
class CellEstimates:
    """Of the subsets of T_O and T_P: ``estimates[kind][t_o][t_p]``, None where a subset has no image.

    growth: by how much more it is in the most crowded subset than on all images; with AP, a difference of differences.
    """

    estimates: Mapping[Kind, Sequence[Sequence[Estimate | None]]]
    growth: Mapping[Kind, Estimate]


@dataclass(frozen=True)
class RowEstimates:
    """What a row is worth. seeds: that it has results of. values: ``values[kind][number]``, one for each seed.

    differences, cells: to the reference, over the seeds that both have, pair by pair; None for the reference itself,
    and where they share no seed. unpaired: the same differences as if they were not pairs.
    """

    name: str
    seeds: tuple[int, ...]
    values: Mapping[Kind, Mapping[str, Sequence[float]]]
    means: Estimates
    differences: Estimates | None
    unpaired: Estimates | None
    cells: CellEstimates | None


def estimate_rows(measured: Mapping[str, Mapping[int, Measured]], reference: str) -> list[RowEstimates]:
    """All rows that have results. measured: by row and seed. reference: the row that others are compared with.

    Raises:
        DataError: results were measured on different images.
    """
    return [_row(name, runs, reference, measured.get(reference, {})) for name, runs in measured.items() if runs]


def _row(name: str, runs: Mapping[int, Measured], reference: str, base: Mapping[int, Measured]) -> RowEstimates:
    seeds = tuple(sorted(runs))
    values, drawn, _, _ = stacked([runs[seed] for seed in seeds])
    shared = [seed for seed in seeds if seed in base]
    compared = None
    if name != reference and shared:
        own, other = ([each[seed] for seed in shared] for each in (runs, base))
        compared = _Compared(stacked(own), stacked(other), most_crowded(own[0].images))
    return RowEstimates(
        name=name,
        seeds=seeds,
        values={
            kind: {number: values[:, k, n].tolist() for n, number in enumerate(NUMBERS)} for k, kind in enumerate(KINDS)
        },
        means={
            kind: {number: mean_of(values[:, k, n], drawn[:, :, k, n]) for n, number in enumerate(NUMBERS)}
            for k, kind in enumerate(KINDS)
        },
        differences=None if compared is None else compared.numbers(paired=True),
        unpaired=None if compared is None else compared.numbers(paired=False),
        cells=None if compared is None else compared.cells(),
    )


@dataclass(frozen=True)
class _Compared:
    """A row and the reference with the same seeds, as :func:`stacked` gives them, and the most crowded subset."""

    own: tuple[Floats, Floats, Floats, Floats]
    base: tuple[Floats, Floats, Floats, Floats]
    crowded: tuple[int, int]

    def numbers(self, *, paired: bool) -> Estimates:
        difference = paired_difference if paired else unpaired_difference
        return {
            kind: {
                number: difference(
                    self.own[0][:, k, n], self.base[0][:, k, n], self.own[1][:, :, k, n], self.base[1][:, :, k, n]
                )
                for n, number in enumerate(NUMBERS)
            }
            for k, kind in enumerate(KINDS)
        }

    def cells(self) -> CellEstimates:
        (_, _, own, own_drawn), (_, _, base, base_drawn) = self.own, self.base
        _, _, rows, columns = own.shape

        def cell(k: int, row: int, column: int) -> Estimate | None:
            place = (slice(None), k, row, column)
            drawn_place = (slice(None), slice(None), k, row, column)
            found = paired_difference(own[place], base[place], own_drawn[drawn_place], base_drawn[drawn_place])
            return None if found.value != found.value else found  # NaN: no image

        def grown(values: Floats) -> Floats:
            return np.asarray(values[..., *self.crowded] - values[..., 0, 0])

        more, more_drawn = grown(own), grown(own_drawn)
        base_more, base_more_drawn = grown(base), grown(base_drawn)
        return CellEstimates(
            {
                kind: [[cell(k, row, column) for column in range(columns)] for row in range(rows)]
                for k, kind in enumerate(KINDS)
            },
            {
                kind: paired_difference(more[:, k], base_more[:, k], more_drawn[:, :, k], base_more_drawn[:, :, k])
                for k, kind in enumerate(KINDS)
            },
        )


def most_crowded(images: Ints) -> tuple[int, int]:
    """The place ``(T_O, T_P)`` of the most crowded subset of ten images or more: of the highest T_O, then of T_P.

    images: ``(T_O, T_P)``, how many each subset has; the first has all that show anything.
    """
    row, column = np.argwhere(images >= min(10, images[0, 0]))[-1]
    return int(row), int(column)


@dataclass(frozen=True)
class Timed:
    """Seconds a picture: the median of some rounds, and their extremes."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class RowReport:
    """All about a row.

    rate: the learning rate it was trained with; factor: how often its configured one. tried: by factor, the AP of the
    runs that the rate was chosen by; None where a run has none. seconds: of a training, on average; None where nothing
    was trained for it. time: of inference. failed: by the name of a run, why it has no results. estimates: None
    without any results.
    """

    name: str
    title: str
    changes: tuple[str, ...]
    of: str | None
    rate: float
    factor: float
    tried: Mapping[float, float | None]
    seconds: float | None
    time: Timed | None
    failed: Mapping[str, str]
    estimates: RowEstimates | None


@dataclass(frozen=True)
class AblationReport:
    """Rows beside each other.

    reference: the row that others are compared with. draws: of the images, behind the intervals. images: that were
    measured. cell_images: ``cell_images[t_o][t_p]``, of the subsets of T_O and T_P.
    """

    grid: str
    description: str
    reference: str
    seeds: tuple[int, ...]
    draws: int
    images: int
    cell_images: Sequence[Sequence[int]]
    rows: Sequence[RowReport]

    @property
    def compared(self) -> list[tuple[RowReport, Estimates]]:
        """The rows that have differences to the reference, with these."""
        rows = [(row, None if row.estimates is None else row.estimates.differences) for row in self.rows]
        return [(row, changes) for row, changes in rows if changes is not None]

    @property
    def crowded(self) -> tuple[int, int]:
        """Where :attr:`cell_images` has the most crowded subset."""
        return most_crowded(np.asarray(self.cell_images))

    @property
    def kinds(self) -> list[Kind]:
        """Boxes, and masks where any row has numbers of them."""
        measured = [row.estimates for row in self.rows if row.estimates is not None]
        return [kind for kind in KINDS if any(each.means[kind]["AP"].value > -1 for each in measured)]  # not NaN
