"""Validation images taken from the training images, for data sets that have none of their own."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from dsctool.data.records import ImageInfo


def held_out(images: Sequence[ImageInfo], share: float, seed: int) -> frozenset[int]:
    """Places in ``images`` of those that are held out: ``share`` of the wide ones and of the others.

    Which ones follows from their ids and the seed alone, not from the order of the file. There is at least one, and one
    that is not, where there are two or more.
    """
    order = sorted(range(len(images)), key=lambda place: _draw(images[place], seed))
    wide = [place for place in order if images[place].width > images[place].height]
    others = [place for place in order if images[place].width <= images[place].height]
    chosen = {place for part in (wide, others) for place in part[: round(share * len(part))]}
    if len(order) > 1:
        if not chosen:
            chosen = {order[0]}
        elif len(chosen) == len(order):
            chosen.remove(order[-1])
    return frozenset(chosen)


def _draw(image: ImageInfo, seed: int) -> str:
    """A number drawn for an image, the same on every machine."""
    return sha256(f"{seed}:{image.id}".encode()).hexdigest()
