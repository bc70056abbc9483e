"""From an image and its annotation to the network's input.

Resizing keeps the aspect ratio: ``s = min(long_side / longer, short_side / shorter)``, each new side is
``int(side * s + 0.5)``, and boxes follow the factors that really came out of it per axis. Images are
resized bilinearly without antialiasing, as the published models were trained (OpenCV's bilinear);
masks and semantic maps take the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.structures import ImageBatch, Size, Targets

SEMANTIC_STRIDE = 8
"""Pixels per cell of a semantic map, in both directions."""
SEMANTIC_IGNORED = 255
"""Cells of a semantic map that no loss looks at."""


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
    """One transformed image: ``(3, h, w)`` float32, normalised, not padded; targets in its pixels."""

    image: Tensor
    targets: Targets
    info: SampleInfo


Batch = tuple[ImageBatch, list[Targets], list[SampleInfo]]


class Transform:
    """Resize, perhaps flip, normalise.

    Random choices come from torch's global generator; the data set seeds it for every training sample.
    """

    def __init__(self, *, resize: ResizeConfig, flip: float, mean: Sequence[float], std: Sequence[float]) -> None:
        self.resize = resize
        self.flip = flip
        self.mean = list(mean)
        self.std = list(std)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Transform an image and its annotation together.

        image: ``(3, h, w)`` uint8 RGB.
        targets: in the image's pixels, masks uint8 or bool, ``semantic`` at full resolution ``(h, w)`` uint8.
            Masks leave as bool, ``semantic`` as int64 on the stride-8 grid: cell ``(i, j)`` is pixel ``(8i, 8j)``.
        """
        parts = _wrap(image, targets)
        height, width = image.shape[-2:]
        size = resized((height, width), self._draw_short_side(), self.resize.long_side)
        parts = {name: functional.resize(part, list(size), antialias=False) for name, part in parts.items()}
        if self.flip > 0 and torch.rand(()) < self.flip:
            parts = {name: functional.horizontal_flip(part) for name, part in parts.items()}
        return self._normalised(parts.pop("image")), _unwrap(parts, targets)

    def image(self, image: Tensor) -> Tensor:
        """Transform an image that has no annotation: ``(3, h, w)`` uint8 RGB to float32."""
        return self(image, Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)))[0]

    def _draw_short_side(self) -> int:
        sides = self.resize.short_sides
        if len(sides) == 1:
            return sides[0]
        if self.resize.sample == "range":
            return int(torch.randint(min(sides), max(sides) + 1, ()))
        return sides[int(torch.randint(len(sides), ()))]

    def _normalised(self, image: Tensor) -> Tensor:
        pixels = functional.to_dtype(image, torch.float32, scale=False)
        return functional.normalize(pixels, self.mean, self.std).as_subclass(Tensor)


def train_transform(config: DataConfig) -> Transform:
    """Random scale and flip, as ``config`` says."""
    return Transform(resize=config.train_resize, flip=config.flip, mean=config.mean, std=config.std)


def test_transform(config: DataConfig) -> Transform:
    """The one test size, no flip."""
    return Transform(resize=config.test_resize, flip=0.0, mean=config.mean, std=config.std)


def resized(size: Size, short_side: int, long_side: int) -> Size:
    """The largest size of the same aspect ratio that exceeds neither side's limit, in pixels."""
    scale = min(long_side / max(size), short_side / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def pad_images(images: Sequence[Tensor], divisor: int) -> ImageBatch:
    """Images ``(3, h, w)`` on one canvas, zero at the right and bottom, sides multiples of ``divisor``."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    return ImageBatch(torch.stack([_padded(image, (height, width), 0) for image in images]), sizes)


def collate(samples: Sequence[Sample], pad_divisor: int) -> Batch:
    """Samples on one canvas; masks are padded with False, semantic maps with 255."""
    images = pad_images([sample.image for sample in samples], pad_divisor)
    height, width = images.tensor.shape[-2:]
    grid = (-(-height // SEMANTIC_STRIDE), -(-width // SEMANTIC_STRIDE))
    targets = []
    for sample in samples:
        target = sample.targets
        masks = None if target.masks is None else _padded(target.masks, (height, width), 0)
        semantic = None if target.semantic is None else _padded(target.semantic, grid, SEMANTIC_IGNORED)
        targets.append(Targets(target.boxes, target.labels, masks, target.crowd, semantic))
    return images, targets, [sample.info for sample in samples]


def _padded(tensor: Tensor, size: Size, value: int) -> Tensor:
    height, width = tensor.shape[-2:]
    return pad(tensor, (0, size[1] - width, 0, size[0] - height), value=value)


def _wrap(image: Tensor, targets: Targets) -> dict[str, tv_tensors.TVTensor]:
    """The parts that move with the image, by name, as torchvision's transforms know them."""
    canvas = (image.shape[-2], image.shape[-1])
    parts: dict[str, tv_tensors.TVTensor] = {"image": tv_tensors.Image(image)}
    for name in ("boxes", "crowd"):
        if (boxes := getattr(targets, name)) is not None:
            parts[name] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas)
    for name in ("masks", "semantic"):
        if (mask := getattr(targets, name)) is not None:
            parts[name] = tv_tensors.Mask(mask, dtype=torch.uint8)
    return parts


def _unwrap(parts: dict[str, tv_tensors.TVTensor], targets: Targets) -> Targets:
    values: dict[str, Tensor | None] = {field.name: getattr(targets, field.name) for field in fields(targets)}
    for name, part in parts.items():
        if isinstance(part, tv_tensors.BoundingBoxes):
            part = functional.clamp_bounding_boxes(part)
        values[name] = part.as_subclass(Tensor)
    if values["masks"] is not None:
        values["masks"] = values["masks"].bool()
    if values["semantic"] is not None:
        values["semantic"] = values["semantic"][::SEMANTIC_STRIDE, ::SEMANTIC_STRIDE].long()
    return Targets(**values)  # type: ignore[arg-type]
