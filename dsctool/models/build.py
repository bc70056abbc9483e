"""The only place that turns a configuration into modules."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from torch import nn

from dsctool.config.limits import fit_limits
from dsctool.config.model_schema import (
    BackboneConfig,
    CascadeRcnnConfig,
    DscConfig,
    HtcConfig,
    MaskHeadConfig,
    ModelConfig,
    RfpConfig,
    RpnConfig,
    SemanticHeadConfig,
)
from dsctool.config.schema import Config, Part, PostprocessConfig, TrainConfig
from dsctool.data.records import Category
from dsctool.models.backbones.resnet import ConvFactory, ResNet, batch_norm, group_norm, plain_conv
from dsctool.models.backbones.sac import DeformableConv, StandardisedConv, SwitchableAtrousConv
from dsctool.models.cascades.box_stage import BoxStage
from dsctool.models.cascades.cascade_rcnn import CascadeRCNN
from dsctool.models.cascades.dsc import DSC, GuidanceSwitches
from dsctool.models.cascades.htc import HTC
from dsctool.models.detector import Detector
from dsctool.models.necks.fpn import FPN, STRIDES
from dsctool.models.necks.rfp import RFP
from dsctool.models.postprocess import Postprocess
from dsctool.models.roi.box_head import BoxHead
from dsctool.models.roi.fusion import FeatureFusion
from dsctool.models.roi.mask_head import MaskHead
from dsctool.models.roi.semantic_head import SemanticHead
from dsctool.models.rpn import RPN, AnchorSampling, ProposalLimits
from dsctool.models.targets import RoiSampling
from dsctool.ops import mmcv_backend
from dsctool.ops.deform_conv import DeformableConvFunction, deformable_conv
from dsctool.ops.geometry import CURRENT, Geometry, Mmdet1Geometry

COCO_CLASSES = 80


def build_detector(config: Config, *, num_classes: int | None = None) -> Detector:
    """A detector with random weights, whose classes have numbers for names until somebody sets ``categories``.

    Limits that are ``auto`` become the published ones: no data are known here.

    Args:
        config: the experiment.
        num_classes: foreground classes of the data, used where ``model.num_classes`` is null (then
            80, COCO's, where neither says).

    Raises:
        ConfigError: ``model.ops`` names a backend that is not installed.
    """
    config = fit_limits(config)
    model, geometry = _settled(config.model), _geometry(config)
    num_classes = model.num_classes or num_classes or COCO_CLASSES
    rfp, channels = model.neck.rfp, model.neck.channels
    shares = rfp is not None and rfp.share_backbone
    again = config.train.checkpointed_parts
    backbone = _backbone(
        model.backbone, ops=model.ops, channels=channels, feedback=rfp if shares else None, again=again
    )
    return Detector(
        backbone=backbone,
        neck=FPN(backbone.channels, channels, checkpoint="neck" in again),
        rfp=None if rfp is None else _rfp(rfp, model.backbone, ops=model.ops, channels=channels, again=again),
        rpn=_rpn(model.rpn, channels=channels, geometry=geometry),
        cascade=_cascade(model, _semantic_classes(config, num_classes), num_classes, geometry, config.train),
        postprocess=_postprocess(config.postprocess),
        config=config,
        geometry=geometry,
        categories=[Category(label + 1, f"class {label + 1}") for label in range(num_classes)],
    )


def _geometry(config: Config) -> Geometry:
    return Mmdet1Geometry(resizes=config.data.test_resizes) if config.model.geometry == "mmdet1" else CURRENT


def _settled(model: ModelConfig) -> ModelConfig:
    """With the settings that come with a geometry: mmdet 1.x left no choice where later versions have a key."""
    if model.geometry == "current":
        return model
    cascade: dict[str, object] = {"low_quality_matches": True}
    if (branch := model.cascade.semantic_branch) is not None:
        cascade["semantic"] = branch.model_copy(update={"loss_average": "valid_pixels"})
    rpn = model.rpn.model_copy(update={"keep_zero_area": True})
    return model.model_copy(update={"rpn": rpn, "cascade": model.cascade.model_copy(update=cascade)})


def _backbone(
    config: BackboneConfig, *, ops: str, channels: int, feedback: RfpConfig | None, again: Collection[Part]
) -> ResNet:
    """channels: of the pyramid. feedback: how it is fed back into this backbone; None: it is not.

    again: parts whose activations are computed again for their gradients.
    """
    conv: ConvFactory = StandardisedConv if config.weight_standardisation else plain_conv
    conv3x3: list[ConvFactory] = [conv] * 4
    sample = _deformable_conv(ops)
    if config.dcn is not None:
        for stage in config.dcn.stages:
            conv3x3[stage - 1] = partial(DeformableConv, sample=sample)
    if config.sac is not None:
        for stage in config.sac.stages:
            conv3x3[stage - 1] = partial(SwitchableAtrousConv, deformable=config.sac.deformable, sample=sample)
    return ResNet(
        depth=config.depth,
        groups=config.groups,
        width_per_group=config.width_per_group,
        in_channels=config.in_channels,
        stem_channels=config.stem_channels,
        conv=conv,
        conv3x3=conv3x3,
        norm=batch_norm if config.norm == "batch" else group_norm,
        frozen_stages=config.frozen_stages,
        freeze_norm_statistics=config.freeze_norm_statistics,
        feedback_channels=None if feedback is None else channels,
        zero_feedback=feedback is not None and feedback.feedback_init == "zeros",
        checkpoint="backbone" in again,
    )


def _deformable_conv(ops: str) -> DeformableConvFunction:
    if ops == "torchvision":
        return deformable_conv
    mmcv_backend.require()
    return mmcv_backend.mmcv_deformable_conv


def _rfp(config: RfpConfig, backbone: BackboneConfig, *, ops: str, channels: int, again: Collection[Part]) -> RFP:
    return RFP(
        channels=channels,
        aspp_dilations=config.aspp_dilations,
        aspp_init=config.aspp_init,
        checkpoint="neck" in again,
        backbones=[
            None
            if config.share_backbone
            else _backbone(backbone, ops=ops, channels=channels, feedback=config, again=again)
            for _ in range(config.steps - 1)
        ],
    )


def _rpn(config: RpnConfig, *, channels: int, geometry: Geometry) -> RPN:
    return RPN(
        channels=channels,
        strides=STRIDES,
        anchor_scale=config.anchor_scale,
        anchor_ratios=config.anchor_ratios,
        sampling=AnchorSampling(
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            min_positive_iou=config.min_positive_iou,
            count=config.samples,
            positive_fraction=config.positive_fraction,
        ),
        smooth_l1_beta=config.smooth_l1_beta,
        nms_iou=config.nms_iou,
        train_limits=ProposalLimits(int(config.train_pre_nms), int(config.train_max_proposals)),
        test_limits=ProposalLimits(int(config.test_pre_nms), int(config.test_max_proposals)),
        keep_zero_area=config.keep_zero_area,
        geometry=geometry,
    )


def _cascade(
    model: ModelConfig, semantic: int | None, num_classes: int, geometry: Geometry, train: TrainConfig
) -> nn.Module:
    channels, at_once = model.neck.channels, train.masks_at_once
    checkpoint = "cascade" in train.checkpointed_parts
    match model.cascade:
        case CascadeRcnnConfig() as cascade:
            head = cascade.mask_head
            return CascadeRCNN(
                box_stages=_box_stages(cascade, channels=channels, num_classes=num_classes, geometry=geometry),
                mask_heads=[]
                if head is None
                else [
                    _mask_head(head, in_channels=channels, num_classes=num_classes, fused=False, at_once=at_once)
                    for _ in range(cascade.num_stages)
                ],
                mask_roi_size=14 if head is None else head.roi_size,
                stage_loss_weights=cascade.stage_loss_weights,
                geometry=geometry,
                checkpoint=checkpoint,
            )
        case HtcConfig() as cascade:
            return HTC(
                box_stages=_box_stages(cascade, channels=channels, num_classes=num_classes, geometry=geometry),
                mask_heads=[
                    _mask_head(
                        cascade.mask_head, in_channels=channels, num_classes=num_classes, fused=t > 0, at_once=at_once
                    )
                    for t in range(cascade.num_stages)
                ],
                mask_roi_size=cascade.mask_head.roi_size,
                stage_loss_weights=cascade.stage_loss_weights,
                semantic_head=_semantic_head(semantic, cascade.semantic, channels=channels),
                geometry=geometry,
                checkpoint=checkpoint,
            )
        case DscConfig() as cascade:
            return _dsc(
                semantic,
                cascade,
                channels=channels,
                num_classes=num_classes,
                geometry=geometry,
                checkpoint=checkpoint,
                at_once=at_once,
            )


def _dsc(
    semantic: int | None,
    cascade: DscConfig,
    *,
    channels: int,
    num_classes: int,
    geometry: Geometry,
    checkpoint: bool,
    at_once: int | None,
) -> DSC:
    ratios = cascade.enlarge_ratios
    mask_head = partial(_mask_head, cascade.mask_head, in_channels=channels, norm=True, at_once=at_once)
    return DSC(
        mask_stages=[mask_head(num_classes=1, fused=t > 0) for t in range(cascade.num_stages)],
        box_stages=_box_stages(
            cascade,
            channels=channels,
            num_classes=num_classes,
            mask_channels=cascade.mask_head.channels if cascade.implicit_guidance else None,
            geometry=geometry,
        ),
        mask_head=mask_head(num_classes=num_classes, fused=True),
        mask_roi_size=cascade.roi_size,
        final_roi_size=cascade.mask_head.roi_size,
        switches=GuidanceSwitches(
            explicit=cascade.explicit_guidance,
            plus_one=cascade.explicit_guidance and cascade.plus_one is not False,
            alignment=cascade.alignment,
            enlarge_ratios=(1.0,) * len(ratios) if cascade.alignment == "none" else ratios,
            roi_clipping=cascade.roi_clipping,
        ),
        box_loss_weights=cascade.box_loss_weights,
        averaged_stages=cascade.averaged_stages,
        semantic_head=_semantic_head(semantic, cascade.semantic, channels=channels),
        geometry=geometry,
        checkpoint=checkpoint,
    )


def _box_stages(
    cascade: CascadeRcnnConfig | HtcConfig | DscConfig,
    *,
    channels: int,
    num_classes: int,
    geometry: Geometry,
    mask_channels: int | None = None,
) -> list[BoxStage]:
    """mask_channels: of the mask feature that DSC fuses into the box heads."""
    head = cascade.box_head
    return [
        BoxStage(
            head=BoxHead(
                in_channels=channels,
                roi_size=head.roi_size,
                channels=head.channels,
                num_classes=num_classes,
                fusion=None
                if mask_channels is None
                else FeatureFusion(channels=mask_channels, out_channels=channels, norm=True),
            ),
            roi_size=head.roi_size,
            stds=stds,
            sampling=RoiSampling(
                iou_threshold=iou_threshold,
                low_quality_matches=cascade.low_quality_matches,
                count=cascade.samples,
                positive_fraction=cascade.positive_fraction,
            ),
            num_classes=num_classes,
            geometry=geometry,
        )
        for stds, iou_threshold in zip(cascade.box_stds, cascade.iou_thresholds, strict=True)
    ]


def _mask_head(
    config: MaskHeadConfig, *, in_channels: int, num_classes: int, fused: bool, at_once: int | None, norm: bool = False
) -> MaskHead:
    return MaskHead(
        in_channels=in_channels,
        channels=config.channels,
        convs=config.convs,
        num_classes=num_classes,
        fusion=FeatureFusion(channels=config.channels, out_channels=in_channels, norm=norm) if fused else None,
        init=config.init,
        at_once=at_once,
    )


def _semantic_classes(config: Config, num_classes: int) -> int | None:
    """Of the data that supervise the semantic branch; None: there is no branch."""
    match config.data.semantic:
        case "none":
            return None
        case "instances":
            return num_classes + 1
        case "stuffthingmaps":
            return config.stuff_channels


def _semantic_head(classes: int | None, head: SemanticHeadConfig, *, channels: int) -> SemanticHead | None:
    if classes is None:
        return None
    return SemanticHead(
        channels=channels,
        num_levels=len(STRIDES),
        convs=head.convs,
        num_classes=head.num_classes or classes,
        loss_weight=head.loss_weight,
        average_valid=head.loss_average == "valid_pixels",
    )


def _postprocess(config: PostprocessConfig) -> Postprocess:
    return Postprocess(
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_per_image=int(config.max_per_image),
        nms=config.nms,
        mask_candidates=int(config.mask_candidates),
        keep_candidates=config.keep_candidates,
    )
