"""How often a training image comes in an epoch: more often where it shows rare classes, or as a file says.

A number of repeats need not be whole: 2.3 is twice in every epoch, and once more in three epochs of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsctool.errors import DataError
from dsctool.files import read_json
from dsctool.rle import Ints

Repeats = NDArray[np.float64]
"""``(images,)``, how often each comes in an epoch, on average."""

_SHOWN = 3


def repeats_by_class(images: Ints, labels: Ints, *, count: int, threshold: float) -> Repeats:
    """LVIS's repeat factors: ``max(1, sqrt(threshold / f))``, of the rarest class that an image shows.

    ``f`` is the share of the images that show the class (Gupta et al. 2019).

    images, labels: ``(m,)``, of every instance. count: of the images, also those without instances, which come once.
    """
    repeats = np.ones(count)
    if len(images):
        image, label = np.unique(np.stack([images, labels], axis=1), axis=0).T
        shares = np.bincount(label) / count
        np.maximum.at(repeats, image, np.sqrt(threshold / shares[label]))
    return repeats


def read_weights(path: Path, names: Sequence[str]) -> dict[str, float]:
    """The weights of a JSON file: an object of image files, as the annotations name them, and numbers from 0.

    names: of all images of the split.

    Raises:
        DataError: it is no such file, or names images that are not there; the message begins with its path.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f'{path}: must be an object of image files and weights, as in {{"{names[0]}": 2}}')
    for name, weight in content.items():
        if not _is_weight(weight):
            raise DataError(f"{path}: the weight of {name} is {weight!r}: give a number from 0")
    unknown = sorted(set(content) - set(names))
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise DataError(f"{path}: no such image in the annotations: {', '.join(unknown[:_SHOWN])}{more}")
    return content


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def whole_repeats(repeats: Repeats, generator: np.random.Generator) -> Ints:
    """Whole numbers of repeats ``(images,)``: each rounded up or down at random, and always the same sum.

    The parts behind the point are taken together, in random order, and one repeat is given at every whole number that
    their running sum passes (systematic sampling), so that each is rounded up as often as its size says.
    """
    whole = np.floor(repeats).astype(np.int64)
    parts = repeats - whole
    total = _rounded_sum(parts)
    if total:
        order = generator.permutation(len(parts))
        ends = np.cumsum(parts[order])
        ends *= total / ends[-1]
        ends[-1] = total
        whole[order] += np.diff(np.ceil(ends - generator.random()), prepend=0).astype(np.int64)
    return whole


def sum_of_repeats(repeats: Repeats) -> int:
    """The sum of :func:`whole_repeats`, whatever is drawn."""
    whole = np.floor(repeats)
    return int(whole.sum()) + _rounded_sum(repeats - whole)


def _rounded_sum(parts: Repeats) -> int:
    return math.floor(math.fsum(parts) + 0.5)
