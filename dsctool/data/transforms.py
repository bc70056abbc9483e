"""From an image and its annotation to the network's input.

Resizing keeps the aspect ratio: ``s = min(long_side / longer, short_side / shorter)``, each new side is
``int(side * s + 0.5)``, and boxes follow the factors that really came out of it per axis. Images are
resized bilinearly without antialiasing, as the published models were trained (OpenCV's bilinear);
masks and semantic maps take the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import TVTensor

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.drawing import Undrawn
from dsctool.data.semantic import SEMANTIC_IGNORED, SEMANTIC_STRIDE, draw_semantic_map
from dsctool.ops.boxes import clip_boxes
from dsctool.ops.geometry import Mmdet1Geometry, resize_factor, resized
from dsctool.structures import ImageBatch, Targets, mask_areas
from dsctool.terms import Size


@dataclass(frozen=True)
class Annotated:
    """An image with its annotation while steps change them: all of it in the pixels of ``image``.

    image: ``(c, h, w)`` uint8.
    boxes: ``(G, 4)`` float32, instances that are not crowds. labels: ``(G,)`` int64.
    masks: ``(G, h, w)`` uint8 0/1, or None.
    crowd: ``(c, 4)`` float32 boxes of crowd regions, or None. crowd_masks: ``(c, h, w)`` uint8, or None.
    semantic: ``(h, w)`` uint8 class of every pixel as a file has it, 255 = ignored; or None.
    background: class of the pixels without an instance, where a semantic map is drawn from the masks; None draws none.
    areas: ``(G,)`` pixels of the masks, of which the smaller is drawn over the larger; None counts those that are left.
    undrawn: instead of ``masks`` and ``crowd_masks``, which the first resizing draws, at the size it makes.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    crowd: Tensor | None = None
    crowd_masks: Tensor | None = None
    semantic: Tensor | None = None
    background: int | None = None
    areas: Tensor | None = None
    undrawn: Undrawn | None = None

    @property
    def size(self) -> Size:
        """``(h, w)`` of the image."""
        return self.image.shape[-2], self.image.shape[-1]

    def moved(self, move: Callable[[TVTensor], TVTensor]) -> Annotated:
        """Everything that lies in the image, moved by one of torchvision's functions."""
        changes: dict[str, Any] = {}
        for name, part in self._parts().items():
            changes[name] = move(part).as_subclass(Tensor)
        return replace(self, **changes)

    def resized(self, size: Size) -> Annotated:
        """To ``(h, w)``, masks by the nearest pixel."""
        sample = self.moved(lambda part: functional.resize(part, list(size), antialias=False))
        if self.undrawn is None:
            return sample
        masks, crowd_masks = self.undrawn.at(size)
        return replace(sample, masks=masks, crowd_masks=crowd_masks, undrawn=None)

    def _parts(self) -> dict[str, TVTensor]:
        """By field, as torchvision knows them."""
        parts: dict[str, TVTensor] = {"image": tv_tensors.Image(self.image)}
        for name in ("boxes", "crowd"):
            if (boxes := getattr(self, name)) is not None:
                parts[name] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=self.size)
        for name in ("masks", "crowd_masks", "semantic"):
            if (mask := getattr(self, name)) is not None:
                parts[name] = tv_tensors.Mask(mask)
        return parts

    def targets(self) -> Targets:
        """What the losses see: boxes cut to the image, the semantic map on its grid, drawn from the masks left.

        Cell ``(i, j)`` of the map is pixel ``(8i, 8j)``.
        """
        if self.undrawn is not None:
            return self.resized(self.size).targets()
        return Targets(
            boxes=clip_boxes(self.boxes, self.size),
            labels=self.labels,
            masks=None if self.masks is None else self.masks.view(torch.bool),
            crowd=None if self.crowd is None else clip_boxes(self.crowd, self.size),
            semantic=self._semantic_grid(),
        )

    def _semantic_grid(self) -> Tensor | None:
        grid = (..., slice(None, None, SEMANTIC_STRIDE), slice(None, None, SEMANTIC_STRIDE))
        if self.semantic is not None:
            return self.semantic[grid].long()
        if self.background is None or self.masks is None:
            return None
        areas = mask_areas(self.masks) if self.areas is None else self.areas
        crowds = self.masks[:0] if self.crowd_masks is None else self.crowd_masks
        return draw_semantic_map(
            self.masks[grid], self.labels, crowds[grid], areas=areas, background=self.background
        ).long()


Step = Callable[[Annotated], Annotated]
"""One change of an annotated image. Random choices come from torch's global generator, which the data set seeds for
every training sample."""


@dataclass(frozen=True)
class SampleInfo:
    """Where a sample comes from.

    image_id: the annotation file's id.
    original_size: ``(h, w)`` of the image before any resizing, in pixels.
    file_name: as in the annotation file.
    """

    image_id: int
    original_size: Size
    file_name: str


@dataclass(frozen=True)
class Sample:
    """One transformed image: ``(c, h, w)`` float32, normalised, not padded; targets in its pixels."""

    image: Tensor
    targets: Targets
    info: SampleInfo


Batch = tuple[ImageBatch, list[Targets], list[SampleInfo]]


class Resize:
    """To a size of the same aspect ratio; of several short sides, one is drawn."""

    def __init__(self, config: ResizeConfig) -> None:
        self.config = config

    def __call__(self, sample: Annotated) -> Annotated:
        """Resize an annotated image."""
        return self._to(sample, self._draw_short_side())

    def _to(self, sample: Annotated, short_side: int) -> Annotated:
        return sample.resized(resized(sample.size, short_side, self.config.long_side))

    def _draw_short_side(self) -> int:
        sides = self.config.short_sides
        if len(sides) == 1:
            return sides[0]
        if self.config.sample == "range":
            return int(torch.randint(min(sides), max(sides) + 1, ()))
        return sides[int(torch.randint(len(sides), ()))]


class ResizeByOneFactor(Resize):
    """As mmdet 1.x resized: first and last pixel of a box follow the factor itself, and stay in the image.

    Boxes of less than a pixel count as one. Pixels are resized as ever. See :mod:`dsctool.ops.geometry`.
    """

    def _to(self, sample: Annotated, short_side: int) -> Annotated:
        moved = super()._to(sample, short_side)
        geometry, factor = Mmdet1Geometry(), resize_factor(sample.size, short_side, self.config.long_side)

        def scaled(boxes: Tensor) -> Tensor:
            whole = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)], dim=1)
            return geometry.clip(geometry.scale_by(whole, factor), moved.size)

        crowd = None if sample.crowd is None else scaled(sample.crowd)
        return replace(moved, boxes=scaled(sample.boxes), crowd=crowd)


class Flip:
    """Left for right, with a probability."""

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, sample: Annotated) -> Annotated:
        """Flip an annotated image, or not."""
        if self.probability > 0 and torch.rand(()) < self.probability:
            return sample.moved(functional.horizontal_flip)
        return sample


class Unchanged:
    """Leaves an image as it is, for those who look at it in several ways."""

    def __call__(self, sample: Annotated) -> tuple[Tensor, Targets]:
        """The image, ``(c, h, w)`` uint8, and its targets."""
        return sample.image, sample.targets()

    def image(self, image: Tensor) -> Tensor:
        """The same."""
        return image


class Transform:
    """Steps over an annotated image, and then the network's input."""

    def __init__(self, steps: Sequence[Step], *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.steps = list(steps)
        self.mean = list(mean)
        self.std = list(std)

    def __call__(self, sample: Annotated) -> tuple[Tensor, Targets]:
        """The normalised image, ``(c, h, w)`` float32, and its targets."""
        for step in self.steps:
            sample = step(sample)
        pixels = functional.to_dtype(sample.image, torch.float32, scale=False)
        return functional.normalize(pixels, self.mean, self.std), sample.targets()

    def image(self, image: Tensor) -> Tensor:
        """Transform an image that has no annotation: ``(c, h, w)`` uint8 to float32."""
        return self(Annotated(image, boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)))[0]


def inference_transform(config: DataConfig) -> Transform | Unchanged:
    """The one test size, no flip; with test-time augmentation nothing yet."""
    if config.tta is not None:
        return Unchanged()
    return Transform([Resize(config.test_resize)], mean=config.mean, std=config.std)


def pad_images(images: Sequence[Tensor], divisor: int, *, least: int = 0) -> ImageBatch:
    """Images ``(c, h, w)`` on one canvas, zero at the right and bottom, sides multiples of ``divisor``.

    least: no side of the canvas is shorter, in pixels.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (-(-max(least, *side) // divisor) * divisor for side in zip(*sizes, strict=True))
    return ImageBatch(torch.stack([_padded(image, (height, width), 0) for image in images]), sizes)


def collate(samples: Sequence[Sample], pad_divisor: int, *, least: int = 0) -> Batch:
    """Samples on one canvas, as :func:`pad_images` has it; masks are padded with False, semantic maps with 255."""
    images = pad_images([sample.image for sample in samples], pad_divisor, least=least)
    height, width = images.tensor.shape[-2:]
    grid = (-(-height // SEMANTIC_STRIDE), -(-width // SEMANTIC_STRIDE))
    targets = []
    for sample in samples:
        target = sample.targets
        masks = None if target.masks is None else _padded(target.masks, (height, width), 0)
        semantic = None if target.semantic is None else _padded(target.semantic, grid, SEMANTIC_IGNORED)
        targets.append(replace(target, masks=masks, semantic=semantic))
    return images, targets, [sample.info for sample in samples]


def _padded(tensor: Tensor, size: Size, value: int) -> Tensor:
    height, width = tensor.shape[-2:]
    if (height, width) == size:
        return tensor  # which may be all masks of a crowd
    return pad(tensor, (0, size[1] - width, 0, size[0] - height), value=value)
