"""The views in which test-time augmentation shows an image to a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from dsctool.config.schema import DataConfig, ResizeConfig, TTAConfig
from dsctool.data.transforms import Resize, Transform, inference_transform, pad_images
from dsctool.models.detector import Detector
from dsctool.models.views import View, detect_in_views, groups_in_views, semantic_in_views
from dsctool.structures import Detections
from dsctool.terms import Size


@dataclass(frozen=True)
class ImageViews:
    """Views of one picture ``(c, h, w)`` uint8, made anew each time: size by size, as it is and mirrored."""

    picture: Tensor
    config: DataConfig
    tta: TTAConfig
    device: torch.device

    def __iter__(self) -> Iterator[View]:
        for short_side, long_side in self.tta.resizes:
            resize = Resize(ResizeConfig(short_sides=(short_side,), long_side=long_side))
            image = Transform([resize], mean=self.config.mean, std=self.config.std).image(self.picture)
            for flipped in (False, True) if self.tta.flip else (False,):
                turned = functional.horizontal_flip(image) if flipped else image
                batch = pad_images([turned], self.config.pad_divisor)
                yield View(batch.tensor.to(self.device, non_blocking=True), batch.sizes[0], flipped)


def detect_augmented(model: Detector, picture: Tensor, original: Size) -> Detections:
    """What is in a picture ``(c, h, w)`` uint8, in the pixels of its size ``original``, by ``data.tta``."""
    data = model.config.data
    assert data.tta is not None
    device = next(model.parameters()).device
    return detect_in_views(model, ImageViews(picture, data, data.tta, device), original, data.tta.merge)


def semantic_probabilities(model: Detector, picture: Tensor) -> Tensor:
    """``(classes, h, w)`` in every pixel of a picture ``(c, h, w)`` uint8: the mean over the views of ``data.tta``.

    Without it the picture is seen once, at ``data.test_resize``. Classes are those of the semantic branch. The model is
    left in the mode it is in: results are meant for eval mode.

    Raises:
        ConfigError: the model has no semantic branch.
    """
    return semantic_in_views(model, _views(model, picture), (picture.shape[-2], picture.shape[-1]))


def semantic_groups(model: Detector, picture: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """``(h, w)`` uint8: the most probable of ``groups`` of the semantic branch's classes in every pixel of a picture.

    Views, mode and errors as for :func:`semantic_probabilities`, of which the groups are sums.
    """
    return groups_in_views(model, _views(model, picture), (picture.shape[-2], picture.shape[-1]), groups)


def _views(model: Detector, picture: Tensor) -> Iterable[View]:
    data, device = model.config.data, next(model.parameters()).device
    if data.tta is not None:
        return ImageViews(picture, data, data.tta, device)
    batch = pad_images([inference_transform(data).image(picture)], data.pad_divisor)
    return [View(batch.tensor.to(device), batch.sizes[0], flipped=False)]


def count_views(tta: TTAConfig) -> int:
    """How many views there are of an image."""
    return len(tta.short_sides) * (2 if tta.flip else 1)


def in_views(task: str, tta: TTAConfig | None) -> str:
    """What running a model over images is called in progress: with the number of views where there are several."""
    return task if tta is None else f"{task} (images x {count_views(tta)} views)"
