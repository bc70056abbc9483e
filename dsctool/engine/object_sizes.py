"""What is said where the resize makes instances too small to be found: before a run, then by what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

from dsctool.coco_results import Result, reaching
from dsctool.config.schema import Config, DataConfig
from dsctool.data.object_sizes import (
    MANY,
    SMALL,
    TILES_WORD,
    ObjectSizes,
    Resize,
    enlarged,
    resize_words,
    test_resize,
    train_resize,
)
from dsctool.data.stats import CANVASES, SplitStats
from dsctool.terms import Size

FEW = 20
"""Fewer found instances say nothing of their sizes."""
FINEST_STRIDE = 4
"""Of the pyramid: the smallest anchor is so many pixels times the anchor scale."""


def small_objects_note(file: Path, sizes: ObjectSizes, config: Config) -> tuple[str, ...]:
    """At most one sentence: how many training instances are small on the canvas of ``config``, and what to set."""
    resize, tiles = train_resize(config.data), config.data.tiles
    seen = sizes.in_windows(tiles)
    wanted = seen.enough(resize)
    words = resize_words(wanted, training=True)
    if config.data.jitter is not None:
        words = f"data.jitter.size={wanted[0]} {resize_words(wanted, training=False)}"
    scale = config.model.rpn.anchor_scale
    if scale > (fitting := floor(2 * SMALL / FINEST_STRIDE)):
        words += f" model.rpn.anchor_scale={fitting}"
    small = seen.small(resize)
    if tiles is None or not small:
        return _note(file, small, len(sizes), resize, wanted, words)
    closer = sizes.windows_enough(tiles.size, resize)
    instead = "" if closer is None else f", or take smaller tiles: data.tiles.size={closer}"
    return _note(file, small, len(sizes), resize, wanted, words, what=_tiles(tiles.size), instead=instead)


def _tiles(size: int) -> str:
    return f"tiles of {size} x {size}"


def small_objects_in(file: Path, split: SplitStats) -> tuple[str, ...]:
    """The same for data alone: a sentence for each kind of configurations whose canvas is too small."""
    return tuple(
        note
        for name, resize in CANVASES.items()
        for note in _note(
            file,
            split.below_8_pixels[name],
            split.instances,
            resize,
            split.canvas_for_8_pixels[name],
            resize_words(split.canvas_for_8_pixels[name], training=True),
            by=f", as {name} configurations have it",
        )
    )


def _note(
    file: Path, small: int, instances: int, resize: Resize, wanted: Resize, words: str, by: str = "",
    what: str = "images", instead: str = TILES_WORD,
) -> tuple[str, ...]:  # fmt: skip
    if not small or small < MANY * instances:
        return ()
    times = (wanted[0] / resize[0]) ** 2
    return (
        f"{file}: {100 * small / instances:.0f} % of {instances} instances are smaller than {SMALL:g} pixels (square "
        f"root of the area) where {what} are resized to {resize[0]} x {resize[1]}{by}: they can hardly be found. For "
        f"nine of ten to reach {SMALL:g} pixels set {words}, at {times:.1f} times the pixels, memory and time"
        f"{instead}",
    )


@dataclass
class SmallCount:
    """Counts the instances that a detector found, and those that were small on its canvas, by their boxes.

    thresholds: the score from which on a result counts, by category id. window: the longest side of what it looked at
    by tiles, in pixels.
    """

    config: DataConfig
    thresholds: Mapping[int, float]
    found: int = 0
    small: int = 0
    window: int = 0

    def add(self, results: Sequence[Result], size: Size) -> None:
        """Count an image's results. size: of the image."""
        boxes = [result["bbox"] for result in reaching(results, self.thresholds)]
        self.add_sides([(width, height) for _, _, width, height in boxes], size)

    def add_sides(self, sides: Iterable[tuple[float, float]], size: Size) -> None:
        """The same of boxes, by width and height."""
        resize, tiles = test_resize(self.config), self.config.tiles
        if tiles is not None:
            size = min(size[0], tiles.size), min(size[1], tiles.size)
            self.window = max(self.window, *size)
        limit = (SMALL / min(resize[0] / min(size), resize[1] / max(size))) ** 2
        areas = [width * height for width, height in sides]
        self.found += len(areas)
        self.small += sum(area < limit for area in areas)

    @classmethod
    def total(cls, counts: Sequence[SmallCount], config: DataConfig, thresholds: Mapping[int, float]) -> SmallCount:
        """Several counts of different images as one."""
        found, small = (sum(getattr(each, name) for each in counts) for name in ("found", "small"))
        return cls(config, thresholds, found, small, max((each.window for each in counts), default=0))

    def notes(self) -> tuple[str, ...]:
        """At most one sentence: how many were small, and how to look closer."""
        resize = test_resize(self.config)
        if self.found < FEW or self.small < MANY * self.found:
            return ()
        closer, what = resize_words(enlarged(resize, 2), training=False) + TILES_WORD, "images"
        if self.config.tiles is not None:
            side = max(self.window // 2, 1)
            closer, what = f"--tiles {side} (data.tiles.size={side})", _tiles(self.window)
        return (
            f"{100 * self.small / self.found:.0f} % of {self.found} instances that reach the score threshold are "
            f"smaller than {SMALL:g} pixels where the model sees them ({what} resized to {resize[0]} x "
            f"{resize[1]}): others may have been missed. Look twice as close: {closer}; better, train so as well",
        )
