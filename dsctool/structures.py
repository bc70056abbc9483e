"""The typed data that travels between the parts.

Symbols used in shapes throughout the package:

====  =================================================================
N     images in a batch
R     regions of interest (RoIs) of a batch, all images concatenated
G     annotated instances of one image
n     detected instances of one image
K     foreground classes; as a class index, K is the background
C     channels
h, w  height and width in pixels, of whatever the sentence is about
====  =================================================================

Boxes are absolute ``(x1, y1, x2, y2)`` floats in pixels, half-open: a box around one pixel at the
origin is ``(0, 0, 1, 1)``; width is ``x2 - x1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from torch import Tensor

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

Kind = Literal["bbox", "segm"]
"""What is measured: boxes or masks, as COCO calls them."""
KINDS: tuple[Kind, Kind] = ("bbox", "segm")
KIND_NAMES: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
"""In words."""

Role = Literal["train", "val"]
"""What a split of a data set is for."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

MEDIUM_AREA, LARGE_AREA = 32.0**2, 96.0**2
"""COCO's limits between small, medium and large instances, in square pixels."""


class _Movable:
    """Dataclasses whose tensors move together."""

    def to(self, device: torch.device | str) -> Self:
        """The same data with every tensor field on ``device``."""
        values = {}
        for field in fields(self):  # type: ignore[arg-type]
            values[field.name] = _moved(getattr(self, field.name), device)
        return type(self)(**values)


def _moved(value: object, device: torch.device | str) -> object:
    if isinstance(value, Tensor | _Movable):
        return value.to(device)
    return tuple(_moved(part, device) for part in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class ImageBatch(_Movable):
    """Normalised images, padded at the right and the bottom to one canvas.

    tensor: ``(N, 3, H, W)`` float32; the padding is zero, that is, the mean colour.
    sizes: the ``(h, w)`` of every image inside the canvas.
    """

    tensor: Tensor
    sizes: list[Size]


@dataclass(frozen=True)
class Targets(_Movable):
    """What losses compare the predictions of one image with, in the pixels of the batch's canvas.

    boxes: ``(G, 4)`` float32, instances that are not crowds.
    labels: ``(G,)`` int64, 0-based contiguous classes.
    masks: ``(G, h, w)`` bool (or uint8 0/1), one bitmap per box; None for detectors without masks.
    crowd: ``(c, 4)`` float32 boxes of crowd regions, for who shows or counts what is in a batch; no loss looks at them,
        as published.
    semantic: ``(H/8, W/8)`` int64 class per stride-8 cell, 255 = ignored; None without a semantic branch.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    crowd: Tensor | None = None
    semantic: Tensor | None = None


@dataclass(frozen=True)
class Proposals(_Movable):
    """Class-agnostic candidate boxes of one image, by descending score.

    boxes: ``(n, 4)`` float32.
    scores: ``(n,)`` float32 in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class StageMasks(_Movable):
    """What one stage of a cascade thought of the masks of ``n`` detections.

    name: of the stage, for people.
    boxes: ``(n, 4)`` float32, the RoIs as they came into the stage, in the detections' pixels.
    probs: ``(n, s, s)`` float32 in [0, 1], each spread over its box.
    """

    name: str
    boxes: Tensor
    probs: Tensor


@dataclass(frozen=True)
class Detections(_Movable):
    """What a detector found in one image, with masks still as small probability maps.

    boxes: ``(n, 4)`` float32 in the pixels of ``size``, by descending score.
    scores: ``(n,)`` float32.
    labels: ``(n,)`` int64, 0-based contiguous.
    mask_probs: ``(n, s, s)`` float32 in [0, 1], each spread over its box; None for box-only detectors.
    size: the ``(h, w)`` of the image that the boxes are in.
    stages: the masks of every stage of the cascade, first to last, where they were asked for.
    candidates: the best of what suppression chose from, without masks, where the configuration keeps them.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probs: Tensor | None
    size: Size
    stages: tuple[StageMasks, ...] = ()
    candidates: Detections | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor) -> Detections:
        """The detections of the rows ``(m,)``, int64 or bool; with all candidates."""
        return Detections(
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            mask_probs=None if self.mask_probs is None else self.mask_probs[rows],
            size=self.size,
            stages=tuple(StageMasks(stage.name, stage.boxes[rows], stage.probs[rows]) for stage in self.stages),
            candidates=self.candidates,
        )


@dataclass(frozen=True)
class Instances(_Movable):
    """Finished results for one image.

    boxes: ``(n, 4)`` float32, by descending score.
    scores: ``(n,)`` float32.
    labels: ``(n,)`` int64, 0-based contiguous.
    masks: ``(n, h, w)`` bool at the size asked for; None for box-only detectors.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)
