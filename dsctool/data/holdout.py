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
    ranked: dict[bool, list[int]] = {True: [], False: []}
    for place in sorted(range(len(images)), key=lambda place: _draw(images[place], seed)):
        ranked[images[place].width > images[place].height].append(place)
    chosen = {place for places in ranked.values() for place in places[: round(share * len(places))]}
    everything = sorted((place for places in ranked.values() for place in places), key=lambda p: _draw(images[p], seed))
    if not chosen:
        chosen = set(everything[:1])
    if len(chosen) == len(images):
        chosen -= {everything[-1]}
    return frozenset(chosen)


def _draw(image: ImageInfo, seed: int) -> str:
    """A number drawn for an image, the same on every machine."""
    return sha256(f"{seed}:{image.id}".encode()).hexdigest()
