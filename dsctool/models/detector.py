"""The detector: image -> features -> proposals -> cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from dsctool.errors import ConfigError
from dsctool.models.backbones.resnet import ResNet
from dsctool.models.input_checks import check_normalised, check_targets
from dsctool.models.losses import Mean, values
from dsctool.models.necks.fpn import FPN
from dsctool.models.necks.rfp import RFP
from dsctool.models.postprocess import Postprocess, Selected
from dsctool.models.roi.extractors import few_at_once, ready_for_rois
from dsctool.models.roi.semantic_head import SemanticHead
from dsctool.models.rpn import RPN
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.masks import paste_images
from dsctool.ops.roi_align import boxes_to_rois
from dsctool.structures import Detections, Doubts, Instances, RoiMasks, Scored, StageMasks, State, Targets, settled
from dsctool.terms import Size

if TYPE_CHECKING:
    from dsctool.config.schema import Config
    from dsctool.data.images import ImageSource
    from dsctool.data.records import Category

    _Source = TypeVar("_Source", bound=ImageSource)


class Cascade(Protocol[State]):
    """The RoI stages behind the proposals. What overlaps is suppressed, and masks are pasted, outside.

    semantic_head: the semantic branch, or None.
    """

    semantic_head: SemanticHead | None

    @property
    def has_masks(self) -> bool:
        """Whether there are mask heads: else no masks may be asked for."""

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], sizes: Sequence[Size]
    ) -> dict[str, Mean]:
        """Weighted losses from the proposals ``(n_i, 4)`` of every image."""

    def score(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> Scored[State]:
        """Boxes and class scores from the proposals ``(n_i, 4)`` of every image."""

    def masks(
        self, features: Sequence[Tensor], scored: Scored[State], rows: Tensor, rois: Tensor, labels: Tensor
    ) -> RoiMasks:
        """Masks of the classes ``labels (R,)`` in ``rois (R, 5)``, in the canvas's pixels.

        rows: ``(R,)`` int64, of the boxes of ``scored``, all images concatenated: where each RoI came from.
        """

    def masks_for(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> RoiMasks:
        """Masks of any boxes ``(n_i, 4)`` and classes ``(n_i,)`` of every image, wherever they came from."""


class Detector(nn.Module):
    """A two-stage instance-segmentation model.

    What a call returns never depends on train or eval mode: :meth:`losses` gives losses,
    :meth:`detect` and :meth:`predict` give results.

    config: the configuration it was built from.
    categories: the class of each label.
    postprocess: what is kept of what overlaps; may be replaced at any time.
    geometry: how boxes and pixels meet.
    """

    def __init__(
        self, *, backbone: ResNet, neck: FPN, rfp: RFP | None, rpn: RPN, cascade: nn.Module, postprocess: Postprocess,
        config: Config, categories: Sequence[Category], geometry: Geometry = CURRENT,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.categories = list(categories)
        self.postprocess = postprocess
        self.geometry = geometry
        self.backbone = backbone
        self.neck = neck
        self.rfp = rfp
        self.rpn = rpn
        self.cascade = cascade
        # Convolutions run faster on this layout, and RoIAlign on a CPU reads it without a copy.
        self.to(memory_format=torch.channels_last)

    @property
    def num_classes(self) -> int:
        """Foreground classes."""
        return len(self.categories)

    @property
    def has_masks(self) -> bool:
        """Whether results come with masks."""
        return self._cascade.has_masks

    @property
    def has_semantic(self) -> bool:
        """Whether there is a semantic branch."""
        return self._cascade.semantic_head is not None

    @property
    def _cascade(self) -> Cascade[Any]:
        return self.cascade  # type: ignore[return-value]

    def extract_features(self, images: Tensor) -> list[Tensor]:
        """Normalised images ``(N, channels, H, W)`` -> P2..P6, each ``(N, C, h, w)``, strides 4 to 64."""
        images = images.contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = self.neck(self.backbone(images))
        if self.rfp is not None:
            levels = self.rfp(images, levels, fpn=self.neck, backbone=self.backbone)
        return levels if torch.is_grad_enabled() else ready_for_rois(levels)

    @property
    def backbones(self) -> list[ResNet]:
        """The backbone of every pass that has one of its own, first to last."""
        return [self.backbone, *(self.rfp.backbones if self.rfp is not None else ())]

    def forward(
        self, images: Tensor, targets: Sequence[Targets], sizes: Sequence[Size] | None = None
    ) -> dict[str, Mean]:
        """:meth:`losses` before they are divided, as the call that wrappers such as ``DistributedDataParallel`` see."""
        sizes = _sizes(images, sizes)
        canvas = (images.shape[-2], images.shape[-1])
        head = self._cascade.semantic_head
        check_targets(
            targets,
            images=len(images),
            canvas=canvas,
            num_classes=self.num_classes,
            semantic_classes=None if head is None else head.num_classes,
        )
        features = self.extract_features(images)
        losses, proposals = self.rpn.losses(features, targets, sizes)
        return losses | self._cascade.losses(features, [p.boxes for p in proposals], targets, sizes)

    def losses(
        self, images: Tensor, targets: Sequence[Targets], sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is what training minimises.

        Every trainable parameter gets a gradient on every batch, also from images without instances.

        Args:
            images: ``(N, C, H, W)`` normalised, zero-padded to one canvas, of any size.
            targets: one per image, in the canvas's pixels.
            sizes: (h, w) of each image inside the canvas; None: the whole canvas.

        Raises:
            DataError: targets that cannot be learnt from, such as a box without width; the message names image and box.
        """
        return values(self(images, targets, sizes))

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
        semantic: bool = False,
    ) -> list[Detections]:
        """Detections of every image, masks still as small probability maps.

        Args:
            images: ``(N, C, H, W)`` normalised, zero-padded to one canvas.
            sizes: (h, w) of each image inside the canvas; None: the whole canvas.
            original_sizes: (h, w) to rescale each image's results to; None: input pixels.
            stage_masks: give the masks of every stage as well (:attr:`Detections.stages`).
            semantic: give what the semantic branch says as well (:attr:`Detections.semantic`), where there is one.
        """
        sizes = _sizes(images, sizes)
        original_sizes = sizes if original_sizes is None else list(original_sizes)
        features = self.extract_features(images)
        proposals = self.rpn.propose(features, sizes)
        boxes = [each.boxes for each in proposals]
        found, selected = self._detect_from(
            features, boxes, sizes, original_sizes, stage_masks=stage_masks, semantic=semantic
        )
        doubts = zip(proposals, self._doubts(selected, found), strict=True)
        reached = settled([self.rpn.test_limits.reached(p) + more for p, more in doubts])
        return [replace(each, reached=limits) for each, limits in zip(found, reached, strict=True)]

    @torch.no_grad()
    def detect_from(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        *,
        stage_masks: bool = False,
    ) -> list[Detections]:
        """:meth:`detect` from features P2..P6 and every image's proposals ``(n_i, 4)``, wherever they came from."""
        found, selected = self._detect_from(features, proposals, sizes, original_sizes, stage_masks=stage_masks)
        reached = settled(self._doubts(selected, found))
        return [replace(each, reached=limits) for each, limits in zip(found, reached, strict=True)]

    def found_from(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
    ) -> list[Detections]:
        """:meth:`detect_from` without the limits that were reached, which to know takes reading the results."""
        return self._detect_from(features, proposals, sizes, original_sizes, stage_masks=False)[0]

    def _detect_from(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
        *,
        stage_masks: bool,
        semantic: bool = False,
    ) -> tuple[list[Detections], list[Selected]]:
        """Detections, and what was selected for them before suppression by masks."""
        scored = self.score(features, proposals, sizes)
        boxes = [
            self.geometry.scale(each, source=size, target=original)
            for each, size, original in zip(scored.boxes, sizes, original_sizes, strict=True)
        ]
        selected = self.postprocess.select(boxes, scored.scores)
        masks = self._masks(features, scored, selected, sizes, original_sizes)
        found = [
            replace(without_masks(s, original), candidates=_candidates(s.candidates, original))
            for s, original in zip(selected, original_sizes, strict=True)
        ]
        if masks is not None:
            found = [
                self._with_masks(each, mask, size, stages=stage_masks)
                for each, mask, size in zip(found, masks, sizes, strict=True)
            ]
            found = self.postprocess.suppress_masks(found)
        if semantic and (head := self._cascade.semantic_head) is not None and scored.semantic is not None:
            maps = head.predict(scored.semantic[0])
            found = [replace(each, semantic=map_) for each, map_ in zip(found, maps, strict=True)]
        return found, selected

    def _doubts(self, selected: Sequence[Selected], found: Sequence[Detections]) -> list[Doubts]:
        """Which limits of suppression kept others away."""
        return [self.postprocess.reached(s, each) for s, each in zip(selected, found, strict=True)]

    def _masks(
        self,
        features: Sequence[Tensor],
        scored: Scored[Any],
        selected: Sequence[Selected],
        sizes: Sequence[Size],
        original_sizes: Sequence[Size],
    ) -> list[RoiMasks] | None:
        """The masks of every image's selection, in the canvas's pixels."""
        if not self.has_masks:
            return None
        starts = accumulate((boxes.shape[0] for boxes in scored.boxes[:-1]), initial=0)
        rows = torch.cat([s.rois + start for s, start in zip(selected, starts, strict=True)])
        labels = torch.cat([s.labels for s in selected])
        rois = boxes_to_rois(
            [
                self.geometry.scale(s.boxes, source=original, target=size)
                for s, size, original in zip(selected, sizes, original_sizes, strict=True)
            ]
        )
        return self.roi_masks(features, scored, rows, rois, labels).split([s.boxes.shape[0] for s in selected])

    def _with_masks(self, found: Detections, masks: RoiMasks, size: Size, *, stages: bool) -> Detections:
        """``found`` with its masks; those of the stages, where asked for, move from pixels of ``size`` to its own."""
        moved = (
            StageMasks(stage.name, self.geometry.scale(stage.boxes, source=size, target=found.size), stage.probs)
            for stage in masks.stages
            if stages
        )
        whole_pixels = self.geometry.whole_pixels
        return replace(found, mask_probs=masks.probs, stages=tuple(moved), whole_pixels=whole_pixels)

    def score(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> Scored[Any]:
        """What the cascade makes of proposals ``(n_i, 4)`` of every image, before suppression."""
        return self._cascade.score(features, proposals, sizes)

    def semantic_logits(self, features: Sequence[Tensor]) -> Tensor:
        """What the semantic branch makes of features P2..P6: ``(N, classes, H/8, W/8)``.

        Raises:
            ConfigError: there is no such branch.
        """
        head = self._cascade.semantic_head
        if head is None:
            raise ConfigError(
                f"this model has no semantic branch (model.cascade.kind={self.config.model.cascade.kind}, "
                f"data.semantic={self.config.data.semantic}): take one of HTC, DetectoRS or DSC that has"
            )
        shared, _ = head(features)
        return head.predict(shared)

    def roi_masks(
        self, features: Sequence[Tensor], scored: Scored[Any], rows: Tensor, rois: Tensor, labels: Tensor
    ) -> RoiMasks:
        """Masks of the classes ``labels (R,)`` in ``rois (R, 5)``, which came of the ``rows (R,)`` of ``scored``."""
        parts = few_at_once(rows, rois, labels)
        return RoiMasks.cat([self._cascade.masks(features, scored, *part) for part in parts])

    def masks_for(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> RoiMasks:
        """Masks of any boxes ``(n_i, 4)`` and classes ``(n_i,)`` of every image, wherever they came from."""
        return self._cascade.masks_for(features, boxes, labels)

    @torch.no_grad()
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
        check_normalised(images, mean=self.config.data.mean, std=self.config.data.std)
        return pasted(self.detect(images, sizes, original_sizes), categories=self.categories)

    @overload
    def predict_images(self, images: ImageSource, *, score: float = 0.3) -> Instances: ...

    @overload
    def predict_images(self, images: list[_Source] | tuple[_Source, ...], *, score: float = 0.3) -> list[Instances]: ...

    def predict_images(self, images: Any, *, score: float = 0.3) -> Instances | list[Instances]:
        """What is in an image, or in each image of a list, in its own pixels, with the names of the classes.

        Every image is resized, normalised and padded as the configuration says, and runs by itself. Results are on
        the CPU and keep their image, so that :meth:`Instances.draw` needs none. All of a list's images and masks are
        held at once: for thousands of files use :func:`dsctool.predict_images`, which warns of the same.

        Args:
            images: a path, a Pillow image, or an ``(h, w, 3)`` uint8 array in RGB order, read by the same rules as
                files (:data:`~dsctool.data.images.ImageSource`); or a list of these.
            score: what scores less is left out, as is what the configuration's ``postprocess.score_threshold`` drops.

        Raises:
            DataError: an image cannot be read, or is none of these.
        """
        from dsctool.engine.inference import find_instances

        if isinstance(images, list | tuple):
            return find_instances(self, images, score=score)
        return find_instances(self, [images], score=score)[0]


def to_instances(found: Detections, *, categories: Sequence[Category] = (), image: Tensor | None = None) -> Instances:
    """Detections with their masks pasted to bitmaps; ``image`` ``(3, h, w)`` uint8 is kept with them."""
    return replace(pasted([found], categories=categories)[0], image=image)


def pasted(found: Sequence[Detections], *, categories: Sequence[Category] = ()) -> list[Instances]:
    """The detections of every image with their masks pasted to bitmaps."""
    probs = [each.mask_probs for each in found if each.mask_probs is not None]
    masks: Sequence[Tensor | None] = [None] * len(found)
    if len(probs) == len(found):
        masks = paste_images(
            probs,
            [each.boxes for each in found],
            [each.size for each in found],
            whole_pixels=any(each.whole_pixels for each in found),
        )
    return [
        Instances(each.boxes, each.scores, each.labels, bitmaps, each.size, tuple(categories), encoded=each.encoded)
        for each, bitmaps in zip(found, masks, strict=True)
    ]


def _sizes(images: Tensor, sizes: Sequence[Size] | None) -> list[Size]:
    height, width = images.shape[-2:]
    return [(height, width)] * len(images) if sizes is None else [(int(h), int(w)) for h, w in sizes]


def _candidates(kept: Selected | None, size: Size) -> Detections | None:
    return None if kept is None else without_masks(kept, size)


def without_masks(selected: Selected, size: Size) -> Detections:
    """What was selected in an image of ``size``."""
    return Detections(selected.boxes, selected.scores, selected.labels, None, size)
