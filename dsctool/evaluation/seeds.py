"""How sure a number is that comes from several trainings, measured on one set of images.

Two things are by chance: which seeds were trained, and which images were measured. Both count.

- Seeds: with ``n`` of them, the standard error of their mean is their standard deviation over the root of ``n``. Of two
  rows that share seeds (order of the data, augmentation, initial values), it is that of the differences, seed by seed.
- Images: they are drawn with replacement, the same draws for all rows and seeds, and the standard error is the standard
  deviation over the draws of the mean over the seeds.

Each makes an interval of its own, that of the seeds as wide as Student's distribution says for ``n - 1`` degrees of
freedom: with few seeds, wide. The squares of their half widths add up. (One Student's interval around both errors
together, with Satterthwaite's degrees of freedom, holds the truth in 88 instead of 95 % with two seeds, and in 91 %
with three.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from dsctool.evaluation.tables import Floats

LEVEL = 0.95
_MANY = 1e6
_STEPS = 20_001


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of such.

    low, high: the interval of 95 %; NaN where nobody can tell. by_seeds, by_images: the standard errors it is made
    from; by_seeds is NaN with one seed, and then the interval is of the images alone.
    """

    value: float
    low: float
    high: float
    by_seeds: float
    by_images: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds; NaN of one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def mean_of(values: Floats, drawn: Floats) -> Estimate:
    """Of one row. values: ``(seeds,)``. drawn: ``(seeds, samples)``, the same on images drawn anew."""
    return _estimate(float(np.mean(values)), [_variance(values)], _variance_by_images(drawn))


def paired_difference(own: Floats, base: Floats, own_drawn: Floats, base_drawn: Floats) -> Estimate:
    """Of two rows with the same seeds, in the same order, on the same draws; arguments as for :func:`mean_of`."""
    change = own - base
    return _estimate(float(np.mean(change)), [_variance(change)], _variance_by_images(own_drawn - base_drawn))


def unpaired_difference(own: Floats, base: Floats, own_drawn: Floats, base_drawn: Floats) -> Estimate:
    """As if seeds and images of the two rows had nothing to do with each other: what pairing spares."""
    images = _variance_by_images(own_drawn) + _variance_by_images(base_drawn)
    return _estimate(float(np.mean(own) - np.mean(base)), [_variance(own), _variance(base)], images)


@dataclass(frozen=True)
class _Variance:
    """Of a mean, and the degrees of freedom of what it is estimated from."""

    value: float
    freedom: float


def _variance(values: Floats) -> _Variance:
    count = len(values)
    return _Variance(float(np.var(values, ddof=1)) / count if count > 1 else math.nan, count - 1)


def _variance_by_images(drawn: Floats) -> float:
    """drawn: ``(seeds, samples)``; NaN where a draw has nothing to find."""
    if drawn.shape[1] < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of subsets that hardly any draw has
        return float(np.nanvar(drawn.mean(axis=0), ddof=1))


def _estimate(value: float, seeds: list[_Variance], images: float) -> Estimate:
    parts = [each for each in seeds if not math.isnan(each.value)]
    by_seeds = math.sqrt(sum(each.value for each in parts)) if parts else math.nan
    if not math.isnan(images):
        parts.append(_Variance(images, _MANY))
    reach = math.sqrt(sum(student(each.freedom) ** 2 * each.value for each in parts)) if parts else math.nan
    return Estimate(value, value - reach, value + reach, by_seeds, math.sqrt(images))


@cache
def student(freedom: float, level: float = LEVEL) -> float:
    """How many standard errors to each side hold ``level`` of Student's distribution."""
    # With t = sqrt(freedom) tan(u), its density is a power of a cosine.
    angles = np.linspace(0.0, min(math.pi / 2, 20 / math.sqrt(freedom)), _STEPS)
    density = np.cos(angles) ** (freedom - 1)
    reached = np.append(0.0, np.cumsum((density[1:] + density[:-1]) / 2))
    return math.sqrt(freedom) * math.tan(float(np.interp(level, reached / reached[-1], angles)))
