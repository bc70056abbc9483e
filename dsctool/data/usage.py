"""Which annotations training uses, by the published rules, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dsctool.data.columns import Annotations, Reading
from dsctool.data.faults import has_errors
from dsctool.rle import Bools, Ints

SLIVER = 1e-5
"""Share of the image's side that a box inside it must exceed. Resized, flipped and cut, its ends are off by a few
float32 roundings, each at most 6e-8 of the side: what is so much longer stays a box at every scale."""


@dataclass(frozen=True)
class Usage:
    """used: ``(m,)``, of the annotations. instances: ``(images,)``, how many of them are no crowds.

    note: what is not used, for people, or nothing. reason: why nothing is left to train on, where that is so.
    """

    used: Bools
    instances: Ints
    note: str
    reason: str

    @classmethod
    def of(cls, reading: Reading) -> Self:
        """Of annotations and images that were read."""
        rows = reading.annotations
        unused = _unused(rows, reading.sizes)
        used = ~np.any(list(unused.values()), axis=0)
        counts = ", ".join(f"{np.count_nonzero(chosen)} {why}" for why, chosen in unused.items() if chosen.any())
        note = f"annotations that are not trained on: {counts}" if counts else ""
        instances = np.bincount(rows.image[used & ~rows.crowd], minlength=len(reading.images))
        return cls(
            used, instances, note, "" if instances.any() else _reason(rows, note, faulty=has_errors(reading.faults))
        )


def _unused(annotations: Annotations, sizes: Ints) -> dict[str, Bools]:
    """``(m,)`` by why; each annotation for its first reason only."""
    size = sizes[annotations.image]
    start, extent = annotations.box[:, :2], annotations.box[:, 2:]
    inside = np.minimum(start + extent, size[:, ::-1]) - np.maximum(start, 0)
    reasons: list[tuple[str, Bools]] = [
        ("with an area of 0", annotations.area <= 0),
        ("narrower or lower than a pixel", np.any(extent < 1, axis=1)),
        ("outside the image", np.any(inside <= SLIVER * size[:, ::-1], axis=1)),
    ]
    left = np.ones(len(annotations), dtype=bool)
    unused = {}
    for why, rows in reasons:
        unused[why] = rows & left
        left &= ~rows
    return unused


def _reason(annotations: Annotations, note: str, *, faulty: bool) -> str:
    if not len(annotations):
        return "all annotations are faulty: dsctool data check lists why" if faulty else "there are no annotations"
    if annotations.crowd.all():
        return f"all {len(annotations)} annotations are crowds (iscrowd is 1)"
    if not annotations.box[:, 2:].any():
        return "all boxes have a zero size"
    if (annotations.box[:, :2] + annotations.box[:, 2:] <= 2).all():
        return "its coordinates look normalised (from 0 to 1), and COCO's are pixels"
    return f"{note}, and none is left"
