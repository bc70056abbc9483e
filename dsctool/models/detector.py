"""The detector: image -> features -> proposals -> cascade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from dsctool.models.backbones.resnet import ResNet
from dsctool.models.necks.fpn import FPN
from dsctool.models.necks.rfp import RFP
from dsctool.models.rpn import RPN
from dsctool.ops.masks import paste_masks
from dsctool.structures import Detections, Instances, Size, Targets

if TYPE_CHECKING:
    from dsctool.config.schema import Config
    from dsctool.data.records import Category


class Cascade(Protocol):
    """The RoI stages behind the proposals."""

    @property
    def has_masks(self) -> bool:
        """Whether detections come with masks."""

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """Weighted losses from the proposals ``(n_i, 4)`` of every image."""

    def detect(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        *,
        stage_masks: bool = False,
    ) -> list[Detections]:
        """Detections of every image, in the pixels of its original size."""


class Detector(nn.Module):
    """A two-stage instance-segmentation model.

    What a call returns never depends on train or eval mode: :meth:`losses` gives losses,
    :meth:`detect` and :meth:`predict` give results. ``num_classes`` is the number of foreground classes.
    """

    config: Config
    """The configuration it was built from; set on detectors that come out of a checkpoint."""
    categories: list[Category]
    """The class of each label; set on detectors that come out of a checkpoint."""

    def __init__(
        self, *, backbone: ResNet, neck: FPN, rfp: RFP | None, rpn: RPN, cascade: nn.Module, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rfp = rfp
        self.rpn = rpn
        self.cascade = cascade
        self.num_classes = num_classes
        # Convolutions run faster on this layout, and RoIAlign on a CPU reads it without a copy.
        self.to(memory_format=torch.channels_last)

    @property
    def has_masks(self) -> bool:
        """Whether results come with masks."""
        return self._cascade.has_masks

    @property
    def _cascade(self) -> Cascade:
        return self.cascade  # type: ignore[return-value]

    def extract_features(self, images: Tensor) -> list[Tensor]:
        """Normalised images ``(N, 3, H, W)`` -> P2..P6, each ``(N, C, h, w)``, strides 4 to 64."""
        images = images.contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = self.neck(self.backbone(images))
        return levels if self.rfp is None else self.rfp(images, levels, fpn=self.neck, backbone=self.backbone)

    @property
    def backbones(self) -> list[ResNet]:
        """The backbone of every pass that has one of its own, first to last."""
        return [self.backbone, *(self.rfp.backbones if self.rfp is not None else ())]

    def forward(
        self, images: Tensor, targets: Sequence[Targets], sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """:meth:`losses`, as the call that wrappers such as ``DistributedDataParallel`` see."""
        return self.losses(images, targets, sizes)

    def losses(
        self, images: Tensor, targets: Sequence[Targets], sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is what training minimises.

        Every trainable parameter gets a gradient on every batch, also from images without instances.

        Args:
            images: ``(N, 3, H, W)`` normalised, zero-padded to one canvas; sides are multiples of 32.
            targets: one per image, in the canvas's pixels.
            sizes: (h, w) of each image inside the canvas; None: the whole canvas.
        """
        sizes = _sizes(images, sizes)
        features = self.extract_features(images)
        losses, proposals = self.rpn.losses(features, targets, sizes)
        return losses | self._cascade.losses(features, [p.boxes for p in proposals], targets, sizes)

    @torch.inference_mode()
    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
    ) -> list[Detections]:
        """Detections of every image, masks still as small probability maps.

        Args:
            images: ``(N, 3, H, W)`` normalised, zero-padded to one canvas.
            sizes: (h, w) of each image inside the canvas; None: the whole canvas.
            original_sizes: (h, w) to rescale each image's results to; None: input pixels.
            stage_masks: give the masks of every stage as well (:attr:`Detections.stages`).
        """
        sizes = _sizes(images, sizes)
        original_sizes = sizes if original_sizes is None else list(original_sizes)
        features = self.extract_features(images)
        proposals = self.rpn.propose(features, sizes)
        return self._cascade.detect(
            features, [p.boxes for p in proposals], sizes, original_sizes, stage_masks=stage_masks
        )

    @torch.inference_mode()
    def predict(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
    ) -> list[Instances]:
        """Finished results of every image, masks pasted to bool bitmaps; arguments as for :meth:`detect`.

        A bitmap per instance is held at full size: for large images use :meth:`detect` and
        :func:`dsctool.ops.masks.encode_masks`.
        """
        return [
            Instances(
                boxes=found.boxes,
                scores=found.scores,
                labels=found.labels,
                masks=None if found.mask_probs is None else paste_masks(found.mask_probs, found.boxes, found.size),
            )
            for found in self.detect(images, sizes, original_sizes)
        ]


def _sizes(images: Tensor, sizes: Sequence[Size] | None) -> list[Size]:
    height, width = images.shape[-2:]
    return [(height, width)] * len(images) if sizes is None else [(int(h), int(w)) for h, w in sizes]
