"""How the scenes of a generated set differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsctool.data.synthetic.layout import SIZES
from dsctool.data.synthetic.scenes import CLASSES, Scene, draw_scene
from dsctool.terms import Size


@dataclass(frozen=True)
class Variety:
    """What every scene of a set draws for itself; pairs are the least and the most.

    size: height and width in pixels; None: sides within ``short`` and ``long``, every fourth image upright.
    huddle, labels: as for :func:`~dsctool.data.synthetic.scenes.draw_scene`.
    objects: sizes of the smallest and the largest in each scene, as shares of its shorter side.
    """

    size: Size | None = None
    short: tuple[int, int] = (152, 184)
    long: tuple[int, int] = (200, 256)
    huddle: tuple[float, float] = (0.5, 0.5)
    labels: Sequence[int] = range(len(CLASSES))
    objects: tuple[float, float] = SIZES

    def draw(self, seed: tuple[int, int], image_id: int) -> Scene:
        """The scene of an image; ``seed`` and ``image_id`` (from 1) say all of it. seed: the set's and the split's."""
        rng = np.random.default_rng((*seed, image_id))
        size = self.size or self._any_size(rng, upright=image_id % 4 == 0)
        low, high = self.huddle
        huddle = float(rng.uniform(low, high)) if low < high else low
        return draw_scene(rng, size, huddle, self.labels, self.objects)

    def _any_size(self, rng: np.random.Generator, *, upright: bool) -> Size:
        short, long = (int(rng.integers(low, high + 1)) for low, high in (self.short, self.long))
        return (long, short) if upright else (short, long)
