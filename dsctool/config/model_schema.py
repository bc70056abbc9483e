"""The part of the configuration that describes the detector."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Stage = Literal[1, 2, 3, 4]


def _is_limit(value: object) -> object:
    if value == "auto" or (type(value) is int and value > 0):
        return value
    raise PydanticCustomError("limit", "must be a whole number greater than 0, or auto")


Limit = Annotated[int | Literal["auto"], BeforeValidator(_is_limit)]
"""``auto`` follows the training data (:mod:`dsctool.config.limits`)."""


class Block(BaseModel):
    """Base of every configuration block: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class SacConfig(Block):
    """Switchable atrous convolution in place of the 3x3 convolutions (DetectoRS, section 4)."""

    stages: tuple[Stage, ...] = (2, 3, 4)
    """Backbone stages (1 to 4, ResNet's ``layer1`` to ``layer4``) whose 3x3 convolutions switch."""
    deformable: bool = True
    """Sample both branches at learned offsets, as published; false uses plain convolutions."""


class DcnConfig(Block):
    """Deformable convolution (v1) in place of the 3x3 convolutions."""

    stages: tuple[Stage, ...] = (2, 3, 4)
    """Backbone stages (1 to 4) whose 3x3 convolutions are deformable; ``c3-c5`` is 2, 3, 4."""


class BackboneConfig(Block):
    """ResNet or ResNeXt, with the stride on the 3x3 convolution."""

    depth: Literal[18, 34, 50, 101] = 50
    """Layers of the ResNet."""
    groups: PositiveInt = 1
    """Groups of the 3x3 convolutions; more than 1 makes a ResNeXt."""
    width_per_group: PositiveInt = 64
    """Channels per group in the first stage (64 for ResNet, 4 for ResNeXt 32x4d and 64x4d)."""
    in_channels: PositiveInt = 3
    """Channels of the images: 3 for colours, 1 for grey, or as many bands as are used (``data.channels``, and a
    ``data.mean`` and ``data.std`` of each). Weights made for 3 channels are inflated to others: see
    :func:`dsctool.interop.loading.inflated`. New bands are learnt by the first layer alone if it trains
    (``frozen_stages: -1``)."""
    stem_channels: PositiveInt = 64
    """Channels of the first convolution; stage s has 2^(s-1) times as many planes."""
    norm: Literal["batch", "group"] = "batch"
    """``batch``: as published. ``group``: 32 channels a group at most, right for small batches from scratch."""
    freeze_norm_statistics: bool = True
    """Batch norm uses its running statistics also in training; its affine parameters still train."""
    frozen_stages: Annotated[int, Field(ge=-1, le=4)] = 1
    """-1: everything trains; 0: the stem is fixed; s: the stem and stages 1 to s are fixed."""
    weights: str | None = None
    """A torchvision weight enum (``ResNet50_Weights.IMAGENET1K_V1``), a local file, or null for none."""
    weight_standardisation: bool = False
    """Standardise every convolution's weight (ConvAWS), with affine buffers."""
    sac: SacConfig | None = None
    """Switchable atrous convolution, or null."""
    dcn: DcnConfig | None = None
    """Deformable convolution, or null."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sac is not None and self.dcn is not None and set(self.sac.stages) & set(self.dcn.stages):
            raise ValueError(
                "sac and dcn both replace the 3x3 convolutions of a stage: use different stages, or set one to null"
            )
        if self.depth < 50 and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError("groups and width_per_group need bottleneck blocks (depth 50 or 101)")
        return self


class RfpConfig(Block):
    """Recursive feature pyramid (DetectoRS, section 3)."""

    steps: Annotated[int, Field(ge=2)] = 2
    """Passes through backbone and FPN; 2 is the published model."""
    share_backbone: bool = False
    """All passes use one backbone's weights; published: each pass has its own."""
    aspp_dilations: tuple[PositiveInt, ...] = (1, 3, 6, 1)
    """Dilations of the ASPP branches: the first is a 1x1 convolution, the last is globally pooled."""
    aspp_init: Literal["default", "kaiming"] = "default"
    """ASPP's first weights: PyTorch's default (mmdet 2.28), or Kaiming normal, fan out, with zero biases (by which the
    published weights were trained)."""
    feedback_init: Literal["default", "zeros"] = "default"
    """First weights of the 1x1 convolutions through which the pyramid enters the backbone (``rfp_conv``): PyTorch's
    default (mmdet 2.28), or zeros (by which the published weights were trained): every pass starts as the first."""


class NeckConfig(Block):
    """Feature pyramid: P2 to P6, strides 4 to 64."""

    channels: PositiveInt = 256
    """Channels of every level."""
    rfp: RfpConfig | None = None
    """Recursive feature pyramid, or null for a plain FPN."""

    @model_validator(mode="after")
    def _branches_divide_channels(self) -> Self:
        if self.rfp is not None and self.channels % len(self.rfp.aspp_dilations):
            raise ValueError(f"channels must be a multiple of the {len(self.rfp.aspp_dilations)} ASPP branches")
        return self


class RpnConfig(Block):
    """Region proposal network."""

    anchor_scale: PositiveFloat = 8.0
    """Side of the square anchor in units of its level's stride."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height over width."""
    positive_iou: Fraction = 0.7
    """An anchor with at least this IoU is positive."""
    negative_iou: Fraction = 0.3
    """An anchor with less IoU than this is negative."""
    min_positive_iou: Fraction = 0.3
    """Every instance claims its best anchors when their IoU is at least this."""
    samples: PositiveInt = 256
    """Anchors per image in the losses."""
    positive_fraction: Fraction = 0.5
    """At most this share of the samples is positive."""
    smooth_l1_beta: PositiveFloat = 1 / 9
    """Where the box loss turns from quadratic to linear."""
    train_pre_nms: Limit = "auto"
    """Best proposals kept per level before NMS, in training; ``auto`` fits the training data, here and below."""
    train_max_proposals: Limit = "auto"
    """Proposals kept per image, in training."""
    test_pre_nms: Limit = "auto"
    """Best proposals kept per level before NMS, at inference."""
    test_max_proposals: Limit = "auto"
    """Proposals kept per image, at inference."""
    nms_iou: Fraction = 0.7
    """A proposal that overlaps a better one of its level by more than this is dropped."""
    keep_zero_area: bool = False
    """Proposals without area go on to the cascade (DSC as published) or are dropped (HTC)."""


class BoxHeadConfig(Block):
    """Two fully connected layers, one classifier, one class-agnostic box regressor."""

    roi_size: PositiveInt = 7
    """Bins per side of the RoI feature."""
    channels: PositiveInt = 1024
    """Width of the fully connected layers."""


class MaskHeadConfig(Block):
    """Fully convolutional mask head; its output has twice the RoI feature's resolution."""

    roi_size: PositiveInt = 14
    """Bins per side of the RoI feature."""
    convs: PositiveInt = 4
    """3x3 convolutions before the up-sampling."""
    channels: PositiveInt = 256
    """Channels of those convolutions."""
    init: Literal["default", "kaiming"] = "default"
    """First weights of up-sampling and logits: PyTorch's default (mmdet since 2.12), or Kaiming normal, fan out, with
    zero biases (by which the published weights were trained)."""


STUFFTHINGMAPS_CLASSES = 183
"""Classes of COCO's stuff-and-thing maps."""


class SemanticHeadConfig(Block):
    """Fused semantic head (HTC, section 3.3); whether it exists is said by ``data.semantic``."""

    num_classes: PositiveInt | None = None
    """Channels of the prediction; null: 183 for ``stuffthingmaps``, classes + 1 for ``instances``."""
    convs: PositiveInt = 4
    """3x3 convolutions."""
    loss_weight: PositiveFloat = 0.2
    """Weight of the cross entropy."""
    loss_average: Literal["all_pixels", "valid_pixels"] = "all_pixels"
    """Divide by all cells, ignored ones included (mmdet since August 2021), or by the labelled ones (by which the
    published weights were trained)."""


BoxStd = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]


class CascadeBase(Block):
    """What every cascade has: one entry per stage in each tuple."""

    iou_thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.5, 0.6, 0.7)
    """A proposal is positive in stage t when its IoU reaches the t-th value."""
    box_stds: tuple[BoxStd, ...] = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    """Divisors of the box deltas (dx, dy, dw, dh) per stage."""
    low_quality_matches: bool = False
    """Every instance also claims its best proposal when their IoU reaches the stage's threshold."""
    samples: PositiveInt = 512
    """Proposals per image in the losses of a stage."""
    positive_fraction: Fraction = 0.25
    """At most this share of the samples is positive."""
    box_head: BoxHeadConfig = BoxHeadConfig()
    """The box head of every stage."""

    @property
    def num_stages(self) -> int:
        """Stages of the cascade."""
        return len(self.iou_thresholds)

    @property
    def has_masks(self) -> bool:
        """Whether masks are predicted: there is a ``mask_head``."""
        return getattr(self, "mask_head", None) is not None

    @property
    def semantic_branch(self) -> SemanticHeadConfig | None:
        """``semantic``, of the cascades that have it; whether the branch is built is said by ``data.semantic``."""
        branch: SemanticHeadConfig | None = getattr(self, "semantic", None)
        return branch

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        lengths = {
            name: len(getattr(self, name))
            for name in ("iou_thresholds", "box_stds", "stage_loss_weights", "box_loss_weights")
            if hasattr(self, name)
        }
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry per stage in each of {lengths}: the lengths differ")
        return self


class CascadeRcnnConfig(CascadeBase):
    """Cascade R-CNN, or Cascade Mask R-CNN where ``mask_head`` is given."""

    kind: Literal["cascade_rcnn"] = "cascade_rcnn"
    stage_loss_weights: tuple[PositiveFloat, ...] = (1.0, 0.5, 0.25)
    """Weight of all losses of a stage."""
    mask_head: MaskHeadConfig | None = None
    """The mask head of every stage, or null for boxes only."""


class HtcConfig(CascadeBase):
    """Hybrid task cascade: interleaved boxes and masks with mask information flow."""

    kind: Literal["htc"]
    stage_loss_weights: tuple[PositiveFloat, ...] = (1.0, 0.5, 0.25)
    """Weight of all losses of a stage."""
    low_quality_matches: bool = True
    """As everywhere; published HTC has it on."""
    mask_head: MaskHeadConfig = MaskHeadConfig()
    """The mask head of every stage."""
    semantic: SemanticHeadConfig = SemanticHeadConfig()
    """The semantic branch, present unless ``data.semantic`` is ``none``."""


class DscConfig(CascadeBase):
    """Deeply shape-guided cascade; ``roi_size: 7`` is F-DSC."""

    kind: Literal["dsc"]
    box_loss_weights: tuple[PositiveFloat, ...] = (1.0, 0.5, 0.5)
    """Weight of each stage's box regression loss; classification and masks weigh 1."""
    mask_head: MaskHeadConfig = MaskHeadConfig(init="kaiming")
    """The final, per-class mask head; the class-agnostic mask stages have its depth and width."""
    semantic: SemanticHeadConfig = SemanticHeadConfig(loss_average="valid_pixels")
    """The semantic branch, present unless ``data.semantic`` is ``none``."""
    roi_size: Literal[7, 14] = 14
    """Bins per side of the mask stages' RoI feature: 14 is DSC, 7 is F-DSC."""
    enlarge_ratios: tuple[PositiveFloat, ...] = (2.0, 1.59, 1.26, 1.0)
    """Enlargement of the RoIs that the mask stages and the final mask head look at; ``alignment: none`` has none."""
    explicit_guidance: bool = True
    """Weight box features by the predicted mask (SgRoIAlign)."""
    plus_one: bool | None = None
    """Weight by mask + 1 instead of by the mask alone; null: yes where there is explicit guidance."""
    implicit_guidance: bool = True
    """Fuse the mask stage's feature into the box head. Without it the box heads have no ``fusion`` parameters; masks
    still inform the masks of the next stage, as in HTC (inferred: the published code has no such switch)."""
    alignment: Literal["adaptive", "none", "recompute"] = "adaptive"
    """How the previous mask feature meets the next stage's RoI. ``adaptive``: sampled under it. ``none``: added as it
    is, RoIs are not enlarged (inferred). ``recompute``: computed anew on it by all stages so far (inferred)."""
    roi_clipping: bool = False
    """Keep each enlarged RoI inside the previous one (in the paper; without effect in the published code)."""
    averaged_stages: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2)
    """Stages (0-based) whose class logits are averaged at inference."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.plus_one and not self.explicit_guidance:
            raise ValueError("plus_one needs explicit_guidance: there is no mask to add one to")
        if len(self.enlarge_ratios) != self.num_stages + 1:
            needed = self.num_stages + 1
            raise ValueError(f"enlarge_ratios needs {needed} entries: one per stage and one for the final mask head")
        if not self.averaged_stages or max(self.averaged_stages) >= self.num_stages:
            raise ValueError(f"averaged_stages names stages from 0 to {self.num_stages - 1}, at least one")
        return self


Cascade = Annotated[CascadeRcnnConfig | HtcConfig | DscConfig, Field(discriminator="kind")]


GeometryName = Literal["current", "mmdet1"]


class ModelConfig(Block):
    """The detector."""

    num_classes: PositiveInt | None = None
    """Foreground classes. Null: as many as the data has (COCO's 80 where a model is built without data)."""
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn: RpnConfig = RpnConfig()
    cascade: Cascade
    geometry: GeometryName = "current"
    """How boxes and pixels meet. ``current``: as in mmdet from 2.0 on. ``mmdet1``: as in mmdet 1.x, with which the
    DetectoRS authors' own files (51.3 and 53.3 box AP) and HTC's of 2019 were trained and measured: boxes hold their
    last pixel, anchors and masks lie on whole pixels, RoIAlign takes 2 x 2 samples a bin and is not shifted by half a
    cell, one factor resizes both axes. It also keeps proposals without area, matches of low quality in every stage and
    the semantic loss averaged over labelled cells, whatever ``rpn.keep_zero_area``, ``cascade.low_quality_matches`` and
    ``cascade.semantic.loss_average`` say. For any cascade; results stay half-open boxes."""
    ops: Literal["torchvision", "mmcv"] = "torchvision"
    """Who computes deformable convolutions: torchvision (on a CPU a faster equivalent), or mmcv where it imports."""
