"""Training augmentation that cuts and covers, with truth that fits what is still seen.

Wherever instances lose pixels, their boxes are drawn anew around those that are left (detectors of boxes have no masks:
there the boxes are cut). Instances without any are gone, and those with too few become ignored regions, as crowds are.
An image may lose all its instances: it is trained on as one without, also with ``data.keep_empty: false``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2

from dsctool.config.augment_schema import ColorConfig, CopyPasteConfig, CropConfig, JitterConfig
from dsctool.config.model_schema import GeometryName
from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.semantic import SEMANTIC_IGNORED
from dsctool.data.transforms import Annotated, Flip, Resize, ResizeByOneFactor, Step, Transform
from dsctool.ops.boxes import box_area, clip_boxes
from dsctool.structures import mask_areas
from dsctool.terms import Size

# --- what is left of the truth ------------------------------------------------------------------


def boxes_around(masks: Tensor) -> Tensor:
    """``(n, 4)`` float32: the smallest boxes that hold all pixels of the bitmaps ``(n, h, w)``; of none, a box of 0."""
    ends = []
    for line in (masks.amax(dim=1) > 0, masks.amax(dim=2) > 0):  # columns, then rows
        length = line.shape[1]
        first = line.to(torch.uint8).argmax(dim=1)
        last = length - line.flip(1).to(torch.uint8).argmax(dim=1)
        ends.append(torch.stack([first, torch.where(line.any(dim=1), last, first)]))
    (x1, x2), (y1, y2) = ends
    return torch.stack([x1, y1, x2, y2], dim=1).float()


def settled(
    sample: Annotated,
    before: Annotated,
    *,
    min_visible: float,
    areas: tuple[Tensor | None, Tensor | None] | None = None,
) -> Annotated:
    """``sample``, which shows less than ``before``, with boxes that fit and without instances that cannot be seen.

    sample: has all instances and crowds of ``before``, in their order; its boxes may leave the image. An instance that
    has lost nothing keeps its box as it is annotated.
    min_visible: instances of which a smaller share of the pixels is left become ignored regions. areas: pixels of the
    instances and of the crowds before, where ``before`` does not hold their masks.
    """
    whole, whole_crowd = areas or (_areas(before.masks), _areas(before.crowd_masks))
    boxes, share = _left(sample.boxes, sample.masks, before.boxes, whole, sample.size)
    kept, faint = share >= max(min_visible, 1e-9), (share > 0) & (share < min_visible)
    crowd, crowd_masks = sample.crowd, sample.crowd_masks
    if crowd is not None and before.crowd is not None:
        around, seen = _left(crowd, crowd_masks, before.crowd, whole_crowd, sample.size)
        crowd = torch.cat([around[seen > 0], boxes[faint]])
        if crowd_masks is not None:
            ignored = crowd_masks[:0] if sample.masks is None else sample.masks[faint]
            crowd_masks = torch.cat([crowd_masks[seen > 0], ignored])
    return replace(
        sample,
        boxes=boxes[kept],
        labels=sample.labels[kept],
        masks=None if sample.masks is None else sample.masks[kept],
        areas=None if sample.areas is None else sample.areas[kept],
        crowd=crowd,
        crowd_masks=crowd_masks,
    )


def _areas(masks: Tensor | None) -> Tensor | None:
    return None if masks is None else mask_areas(masks)


def _left(
    boxes: Tensor, masks: Tensor | None, whole_boxes: Tensor, whole: Tensor | None, size: Size
) -> tuple[Tensor, Tensor]:
    """Boxes around what is left of each, and the share that it is of the whole: of pixels, or else of boxes' areas."""
    clipped = clip_boxes(boxes, size)
    narrow = (clipped[:, 2:] - clipped[:, :2]).amin(dim=1) < 1
    if masks is None or whole is None:
        share = box_area(clipped) / box_area(whole_boxes).clamp(min=1e-6)
        return clipped, torch.where(narrow, 0, share)
    areas = mask_areas(masks)
    anew = (areas < whole) | narrow
    return torch.where(anew[:, None], boxes_around(masks), clipped), areas / whole.clamp(min=1)


# --- cutting --------------------------------------------------------------------------------------


def cut(sample: Annotated, corner: tuple[int, int], size: Size, *, min_visible: float) -> Annotated:
    """The part of an image of ``size`` (h, w) whose first pixel is at ``corner`` (y, x)."""
    (top, left), (height, width) = corner, size
    window = (..., slice(top, top + height), slice(left, left + width))

    def part(pixels: Tensor | None) -> Tensor | None:
        return None if pixels is None else pixels[window]

    shift = torch.tensor([left, top, left, top], dtype=torch.float32)
    inside = replace(
        sample,
        image=sample.image[window],
        boxes=sample.boxes - shift,
        masks=part(sample.masks),
        crowd=None if sample.crowd is None else sample.crowd - shift,
        crowd_masks=part(sample.crowd_masks),
        semantic=part(sample.semantic),
    )
    return settled(inside, sample, min_visible=min_visible)


def random_part(sample: Annotated, size: Size, *, min_visible: float) -> Annotated:
    """A part of at most ``size`` (h, w), anywhere in the image; a side that is no longer stays as it is."""
    height, width = (min(pair) for pair in zip(sample.size, size, strict=True))
    top, left = _between(0, sample.size[0] - height), _between(0, sample.size[1] - width)
    return cut(sample, (top, left), (height, width), min_visible=min_visible)


class Crop:
    """A random part of an image."""

    def __init__(self, config: CropConfig) -> None:
        self.config = config

    def __call__(self, sample: Annotated) -> Annotated:
        """Cut an annotated image."""
        side = self.config.size
        return random_part(sample, (side, side), min_visible=self.config.min_visible)


class Jitter:
    """To a random scale, and then a random part of what exceeds the canvas; padding comes with the batch.

    resize: how boxes follow, :class:`~dsctool.data.transforms.Resize` or one of its kind.
    """

    def __init__(self, config: JitterConfig, *, resize: Callable[[ResizeConfig], Step]) -> None:
        self.config = config
        self.resize = resize

    def __call__(self, sample: Annotated) -> Annotated:
        """Resize and cut an annotated image."""
        low, high = self.config.scale
        factor = low + (high - low) * float(torch.rand(()))
        side = max(round(factor * self.config.size), 1)
        resized = self.resize(ResizeConfig(short_sides=(side,), long_side=side))(sample)
        canvas = (self.config.size, self.config.size)
        return random_part(resized, canvas, min_visible=self.config.min_visible)


# --- pasting --------------------------------------------------------------------------------------


def paste(sample: Annotated, pasted: Annotated, *, min_visible: float) -> Annotated:
    """All instances of ``pasted`` over those of ``sample``, an image of the same size: pixels, masks, boxes, maps.

    Crowds of ``pasted`` are not taken along; those of ``sample`` lose what is covered.
    """
    assert sample.masks is not None
    assert pasted.masks is not None
    covered = pasted.masks.bool().any(dim=0)

    def uncovered(masks: Tensor | None) -> Tensor | None:
        return None if masks is None else masks.masked_fill(covered, 0)

    semantic = sample.semantic
    if semantic is not None and pasted.semantic is not None:
        semantic = torch.where(covered, pasted.semantic, semantic)
    beneath = replace(
        sample,
        image=torch.where(covered, pasted.image, sample.image),
        masks=uncovered(sample.masks),
        crowd_masks=uncovered(sample.crowd_masks),
        semantic=semantic,
    )
    beneath = settled(beneath, sample, min_visible=min_visible)
    assert beneath.masks is not None
    areas = None
    if beneath.areas is not None and pasted.areas is not None:
        areas = torch.cat([beneath.areas, pasted.areas])
    return replace(
        beneath,
        boxes=torch.cat([beneath.boxes, pasted.boxes]),
        labels=torch.cat([beneath.labels, pasted.labels]),
        masks=torch.cat([beneath.masks, pasted.masks]),
        areas=areas,
    )


class CopyPaste:
    """Some instances of another image pasted over an image, with a probability.

    The other image is moved by whole pixels at random, inside the image where it is smaller, around it where larger.

    another: gives an image with masks, prepared as the one it is pasted over.
    """

    def __init__(self, config: CopyPasteConfig, another: Callable[[], Annotated]) -> None:
        self.config = config
        self.another = another

    def __call__(self, sample: Annotated) -> Annotated:
        """Paste, or not."""
        if torch.rand(()) >= self.config.probability:
            return sample
        part = random_part(self.another(), sample.size, min_visible=self.config.min_visible)
        count = len(part.labels)
        fewest, most = (min(number, count) for number in self.config.instances)
        chosen = torch.randperm(count)[: _between(fewest, most)]
        return paste(sample, _placed(part, chosen, sample.size), min_visible=self.config.min_visible)


def _placed(sample: Annotated, rows: Tensor, size: Size) -> Annotated:
    """Some instances of an image at a random place in one of ``size``, which is not smaller; no crowds."""
    assert sample.masks is not None
    down, right = (whole - part for whole, part in zip(size, sample.size, strict=True))
    top, left = _between(0, down), _between(0, right)
    margins = (left, right - left, top, down - top)
    return replace(
        sample,
        image=pad(sample.image, margins),
        boxes=clip_boxes(sample.boxes[rows], sample.size) + torch.tensor([left, top, left, top]),
        labels=sample.labels[rows],
        masks=pad(sample.masks[rows], margins),
        semantic=None if sample.semantic is None else pad(sample.semantic, margins, value=SEMANTIC_IGNORED),
        areas=None if sample.areas is None else sample.areas[rows],
        crowd=None,
        crowd_masks=None,
    )


def _between(low: int, high: int) -> int:
    """Any whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, ()))


# --- colours, and all together --------------------------------------------------------------------


class Recolor:
    """Brightness, contrast, saturation and hue, a little different each time."""

    def __init__(self, config: ColorConfig) -> None:
        self.jitter = v2.ColorJitter(
            brightness=config.brightness, contrast=config.contrast, saturation=config.saturation, hue=config.hue
        )

    def __call__(self, sample: Annotated) -> Annotated:
        """Change the colours of an annotated image; of other channels than three, brightness and contrast alone."""
        if len(sample.image) == 3:
            return replace(sample, image=self.jitter(sample.image))
        return replace(sample, image=self.jitter(sample.image[:, None])[:, 0])


@dataclass(frozen=True)
class Prepared:
    """Images from somewhere, after some steps."""

    images: Callable[[], Annotated]
    steps: Sequence[Step]

    def __call__(self) -> Annotated:
        """The next one."""
        sample = self.images()
        for step in self.steps:
            sample = step(sample)
        return sample


def train_transform(
    config: DataConfig, geometry: GeometryName = "current", *, another: Callable[[], Annotated] | None = None
) -> Transform:
    """What training does to an image: a random scale and flip, and whatever else ``config`` has.

    geometry: of the model, ``model.geometry``. another: gives any training image with instances, for copy-paste.
    """
    resize = ResizeByOneFactor if geometry == "mmdet1" else Resize
    scale: Step = resize(config.train_resize)
    if config.jitter is not None:
        scale = Jitter(config.jitter, resize=resize)
    each: list[Step] = [scale, Flip(config.flip)]
    if config.crop is not None:
        each.append(Crop(config.crop))
    steps = list(each)
    if config.copy_paste is not None and another is not None:
        steps.append(CopyPaste(config.copy_paste, Prepared(another, each)))
    if config.color is not None:
        steps.append(Recolor(config.color))
    return Transform(steps, mean=config.mean, std=config.std)
