"""The detector: image -> features -> proposals -> cascade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from dsctool.errors import DataError
from dsctool.models.backbones.resnet import ResNet
from dsctool.models.necks.fpn import FPN
from dsctool.models.necks.rfp import RFP
from dsctool.models.rpn import RPN
from dsctool.ops.masks import paste_masks
from dsctool.structures import Detections, Instances, Size, Targets

if TYPE_CHECKING:
    from dsctool.config.schema import Config
    from dsctool.data.images import ImageSource
    from dsctool.data.records import Category

    _Source = TypeVar("_Source", bound=ImageSource)


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
        :func:`dsctool.ops.masks.encode_masks`. Images as they come go to :meth:`predict_images`.

        Raises:
            DataError: ``images`` is no batch of normalised images.
        """
        _check_normalised(images)
        categories = getattr(self, "categories", ())
        return [to_instances(found, categories=categories) for found in self.detect(images, sizes, original_sizes)]

    @overload
    def predict_images(self, images: ImageSource, *, score: float = 0.3) -> Instances: ...

    @overload
    def predict_images(self, images: list[_Source] | tuple[_Source, ...], *, score: float = 0.3) -> list[Instances]: ...

    def predict_images(self, images: Any, *, score: float = 0.3) -> Instances | list[Instances]:
        """What is in an image, or in each image of a list, in its own pixels, with the names of the classes.

        Every image is resized, normalised and padded as the configuration says, and runs by itself. Results are on
        the CPU and keep their image, so that :meth:`Instances.draw` needs none. All of a list's images and masks are
        held at once: for thousands of files use :func:`dsctool.predict_images`.

        Args:
            images: a path, a Pillow image, or an ``(h, w, 3)`` uint8 array in RGB order, read by the same rules as
                files (:data:`~dsctool.data.images.ImageSource`); or a list of these.
            score: what scores less is left out, as is what the configuration's ``postprocess.score_threshold`` drops.

        Raises:
            DataError: an image cannot be read, or is none of these.
        """
        from dsctool.engine.pictures import find_instances

        if isinstance(images, list | tuple):
            return find_instances(self, images, score=score)
        return find_instances(self, [images], score=score)[0]


def to_instances(found: Detections, *, categories: Sequence[Category] = (), image: Tensor | None = None) -> Instances:
    """Detections with their masks pasted to bitmaps; ``image`` ``(3, h, w)`` uint8 is kept with them."""
    return Instances(
        boxes=found.boxes,
        scores=found.scores,
        labels=found.labels,
        masks=None if found.mask_probs is None else paste_masks(found.mask_probs, found.boxes, found.size),
        size=found.size,
        categories=tuple(categories),
        image=image,
    )


def _check_normalised(images: object) -> None:
    """Refuse what is no ``(N, 3, H, W)`` batch of normalised images, before it gives wrong results."""
    if not isinstance(images, Tensor):
        problem = f"it is a {type(images).__name__}"
    elif images.ndim != 4 or images.shape[1] != 3:
        problem = f"its shape is {tuple(images.shape)}"
    elif not images.is_floating_point():
        problem = f"its values are {str(images.dtype).removeprefix('torch.')}"
    elif images.numel() and images.min() >= 0 and 0 < images.max() <= 1:
        problem = "all its values are from 0 to 1, so the mean colour has not been subtracted"
    else:
        return
    raise DataError(
        f"predict() takes a (N, 3, H, W) float tensor of normalised images, and this is none: {problem}. Paths, Pillow "
        "images and (h, w, 3) uint8 arrays go to predict_images(), which resizes and normalises as the model needs it."
    )


def _sizes(images: Tensor, sizes: Sequence[Size] | None) -> list[Size]:
    height, width = images.shape[-2:]
    return [(height, width)] * len(images) if sizes is None else [(int(h), int(w)) for h, w in sizes]
