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

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsctool.coco_results import Result, Rle, coco_results, decode_bitmap, encode_bitmap, mask_area
from dsctool.terms import Size

if TYPE_CHECKING:
    from PIL.Image import Image

    from dsctool.data.images import ImageSource
    from dsctool.data.records import Category

LimitName = Literal["pre_nms", "max_proposals", "mask_candidates", "max_per_image"]
"""What can keep a detector from finding more in an image."""
Doubts = list[tuple[LimitName, Tensor]]
"""Limits that may have left something out, each with whether it did: ``()`` bool, not yet read from the device."""


def settled(doubts: Sequence[Doubts]) -> list[frozenset[LimitName]]:
    """The limits of every image that did leave something out: one read of the device for all."""
    asked = [answer for image in doubts for _, answer in image]
    answers = iter(torch.stack(asked).tolist() if asked else [])
    return [frozenset([name for name, _ in image if next(answers)]) for image in doubts]


def mask_areas(masks: Tensor) -> Tensor:
    """``(n,)`` int64: pixels of the bitmaps ``(n, h, w)`` that are not 0."""
    # One by one: over several at once torch makes eight bytes of every pixel before it adds them up.
    areas = [mask.count_nonzero() for mask in masks]
    return torch.stack(areas) if areas else masks.new_zeros(0, dtype=torch.int64)


class _Movable:
    """Dataclasses whose tensors move together."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same data with every tensor field on ``device``; non_blocking: as torch has it, for pinned memory."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same data in page-locked memory; data loaders call it."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        values = {}
        for field in fields(self):  # type: ignore[arg-type]
            values[field.name] = _moved(getattr(self, field.name), move)
        return type(self)(**values)


def _moved(value: object, move: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, _Movable):
        return value._moved(move)
    return tuple(_moved(part, move) for part in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class ImageBatch(_Movable):
    """Normalised images, padded at the right and the bottom to one canvas.

    tensor: ``(N, C, H, W)`` float32; the padding is zero, that is, the mean colour.
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
    seed: of what losses draw in the image; None: from torch's global generator.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    crowd: Tensor | None = None
    semantic: Tensor | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Proposals(_Movable):
    """Class-agnostic candidate boxes of one image, by descending score.

    boxes: ``(n, 4)`` float32.
    scores: ``(n,)`` float32 in [0, 1].
    left_out: ``()`` float32: the lowest score kept before NMS on a level that had more anchors; 0 where none had.
    """

    boxes: Tensor
    scores: Tensor
    left_out: Tensor


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
class RoiMasks(_Movable):
    """What a cascade thinks of the masks of R RoIs.

    probs: ``(R, s, s)`` float32 in [0, 1], each of one class and spread over its RoI.
    stages: the same RoIs as every stage of the cascade sees them, first to last.
    """

    probs: Tensor
    stages: tuple[StageMasks, ...]

    @staticmethod
    def cat(parts: Sequence[RoiMasks]) -> RoiMasks:
        """All rows of ``parts``, in order; at least one part."""
        by_stage = zip(*(part.stages for part in parts), strict=True)
        return RoiMasks(
            torch.cat([part.probs for part in parts]),
            tuple(
                StageMasks(same[0].name, torch.cat([m.boxes for m in same]), torch.cat([m.probs for m in same]))
                for same in by_stage
            ),
        )

    def split(self, counts: Sequence[int]) -> list[RoiMasks]:
        """The first ``counts[0]`` rows, the next ``counts[1]``, and so on."""
        bounds = [(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]
        return [
            RoiMasks(self.probs[a:b], tuple(StageMasks(m.name, m.boxes[a:b], m.probs[a:b]) for m in self.stages))
            for a, b in bounds
        ]


State = TypeVar("State")


@dataclass(frozen=True)
class Scored(Generic[State]):
    """What a cascade made of the proposals of a batch, before anything is suppressed.

    boxes: per image ``(n_i, 4)`` in the canvas's pixels, one for every proposal, in the proposals' order.
    scores: per image ``(n_i, K)`` float32, without the background.
    semantic: ``(N, C, H/8, W/8)``, the semantic branch's map, from which its ``predict`` makes class logits, and the
        feature embedded in it; None without the branch.
    state: what the cascade's masks need to know of its stages.
    """

    boxes: list[Tensor]
    scores: list[Tensor]
    semantic: tuple[Tensor, Tensor] | None
    state: State


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
    reached: the limits of the detector that left out what is likely to be something.
    whole_pixels: how the masks are to be pasted; see :func:`dsctool.ops.masks.paste_masks`.
    semantic: ``(classes, H/8, W/8)`` logits of the semantic branch over the padded canvas, where they were asked for.
    encoded: the masks in the whole image, in place of ``mask_probs``, where it was looked at by tiles.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probs: Tensor | None
    size: Size
    stages: tuple[StageMasks, ...] = ()
    candidates: Detections | None = None
    reached: frozenset[LimitName] = frozenset()
    whole_pixels: bool = False
    semantic: Tensor | None = None
    encoded: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor) -> Detections:
        """The detections of the rows ``(m,)``, int64 or bool; with all candidates and what was reached."""
        return Detections(
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            mask_probs=None if self.mask_probs is None else self.mask_probs[rows],
            size=self.size,
            stages=tuple(StageMasks(stage.name, stage.boxes[rows], stage.probs[rows]) for stage in self.stages),
            candidates=self.candidates,
            reached=self.reached,
            whole_pixels=self.whole_pixels,
            semantic=self.semantic,
            encoded=_of_rows(self.encoded, rows),
        )


def _of_rows(encoded: tuple[Rle, ...] | None, rows: Tensor | slice) -> tuple[Rle, ...] | None:
    if encoded is None:
        return None
    return tuple(encoded[row] for row in torch.arange(len(encoded))[rows.cpu() if isinstance(rows, Tensor) else rows])


class InstanceArrays(NamedTuple):
    """:class:`Instances` as numpy arrays of the same shapes and types."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Instances(_Movable):
    """Finished results for one image.

    boxes: ``(n, 4)`` float32, by descending score.
    scores: ``(n,)`` float32.
    labels: ``(n,)`` int64, 0-based contiguous.
    masks: ``(n, h, w)`` bool at the size asked for; None for box-only detectors.
    size: the ``(h, w)`` in pixels that they are in; taken from the masks where it is not given.
    categories: the class of each label; without them a class is called by its number, from 1.
    image: the picture, ``(3, h, w)`` uint8 RGB, where it was kept: three bytes a pixel, where a mask takes one. Made
        smaller where it was looked at by tiles and is very large.
    encoded: the masks run-length encoded, in place of ``masks``, where the image was looked at by tiles: bitmaps would
        take a byte for every pixel and instance. ``found[rows].bitmaps()`` makes them.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    size: Size | None = None
    categories: tuple[Category, ...] = ()
    image: Tensor | None = None
    encoded: tuple[Rle, ...] | None = None

    def __post_init__(self) -> None:
        if self.size is None and self.masks is not None:
            object.__setattr__(self, "size", tuple(self.masks.shape[-2:]))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[Any] | Tensor) -> Self:
        """The instances of ``rows``, as in ``found[found.scores > 0.5]``: a number, a slice, int64 or bool ``(m,)``."""
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows, device=self.boxes.device).reshape(-1)
        if isinstance(chosen, Tensor) and not len(chosen):
            chosen = chosen.long()  # an empty list has no type
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            masks=None if self.masks is None else self.masks[chosen],
            encoded=_of_rows(self.encoded, chosen),
        )

    def __repr__(self) -> str:
        where = "" if self.size is None else f" in {self.size[0]} x {self.size[1]}"
        kinds = [f"{number} {name}" for name, number in self.counts().items()]
        listed = ", ".join(kinds[:5] + ["..."] * (len(kinds) > 5))
        return f"Instances({len(self)}{where}{': ' * bool(listed)}{listed})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture with the instances on it, at most 1,024 pixels a side."""
        if self.image is None:
            return None
        picture = self.draw()
        picture.thumbnail((1024, 1024))
        return picture._repr_png_()

    @property
    def names(self) -> list[str]:
        """The class of every instance, in words."""
        return [self.categories[i].name if self.categories else f"class {i + 1}" for i in self.labels.tolist()]

    @property
    def areas(self) -> Tensor:
        """``(n,)`` float32, in square pixels: of the masks, or of the boxes where there are none."""
        if self.masks is not None:
            return mask_areas(self.masks).float()
        if self.encoded is not None:
            return torch.tensor([mask_area(mask) for mask in self.encoded], dtype=torch.float32)
        return (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    def counts(self) -> dict[str, int]:
        """How many instances there are of each class that was found, the most frequent first."""
        return dict(Counter(self.names).most_common())

    def bitmaps(self) -> Tensor | None:
        """``(n, h, w)`` bool, also of an image that was looked at by tiles; None for box-only detectors."""
        if self.encoded is None or self.size is None:
            return self.masks
        bitmaps = torch.zeros((len(self), *self.size), dtype=torch.bool)
        for bitmap, mask in zip(bitmaps, self.encoded, strict=True):
            bitmap.copy_(decode_bitmap(mask))
        return bitmaps

    def numpy(self) -> InstanceArrays:
        """Boxes, scores, labels and masks as numpy arrays."""
        bitmaps = self.bitmaps()
        masks = None if bitmaps is None else bitmaps.cpu().numpy()
        return InstanceArrays(self.boxes.cpu().numpy(), self.scores.cpu().numpy(), self.labels.cpu().numpy(), masks)

    def to_coco(self, image_id: int) -> list[Result]:
        """COCO results, as ``dsctool eval --predictions`` reads them; ``image_id`` is that of the annotation file."""
        return coco_results(
            boxes=self.boxes,
            scores=self.scores,
            masks=self.encoded if self.masks is None else [encode_bitmap(mask) for mask in self.masks],
            category_ids=[self.categories[i].id if self.categories else i + 1 for i in self.labels.tolist()],
            image_id=image_id,
        )

    def to_supervision(self) -> Any:
        """See :func:`dsctool.interop.handover.to_supervision`."""
        from dsctool.interop.handover import to_supervision

        return to_supervision(self)

    def to_fiftyone(self) -> Any:
        """See :func:`dsctool.interop.handover.to_fiftyone`."""
        from dsctool.interop.handover import to_fiftyone

        return to_fiftyone(self)

    def draw(
        self,
        image: ImageSource | None = None,
        *,
        labels: bool = True,
        color: Literal["class", "instance"] | None = None,
    ) -> Image:
        """The picture with masks, boxes where there are no masks, names and scores on it.

        image: what to draw on, anything that ``predict_images`` takes; None: the picture that was kept. labels: with
        names. color: what has a colour of its own, and a legend with counts below the picture; None: an instance, none.

        Raises:
            DataError: there is no picture, or it cannot be used, or has another size than the instances.
        """
        from dsctool.visualize.draw import Style
        from dsctool.visualize.overlays import draw_found

        return draw_found(self, image, style=Style(labels, color))
