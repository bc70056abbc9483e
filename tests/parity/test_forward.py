"""Inference against the recordings of the published models, stage by stage. Run with ``-s`` to see the differences."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from dsctool.models.cascades.cascade_rcnn import CascadeRCNN
from dsctool.models.cascades.htc import HTC
from dsctool.models.detector import Detector
from dsctool.models.necks.rfp import RFP
from dsctool.models.roi.extractors import roi_feature
from dsctool.ops.roi_align import boxes_to_rois, pyramid_roi_align
from dsctool.structures import Instances
from tests.conftest import RECORDINGS
from tests.parity import fill
from tests.parity.published import (
    difference,
    filled_model,
    map_difference,
    mask_area_excess,
    match,
    match_proposals,
    recording,
)

MAPS = 1e-4
"""Largest difference of a map, relative to its maximum."""
OF_EACH_CASCADE = [
    "detectors_cascade_rcnn_r50_1x_coco",
    "detectors_htc_r50_1x_coco",
    "htc_without_semantic_r50_fpn_1x_coco",
]
"""What comes after the features does not depend on where they come from."""

Recorded = dict[str, np.ndarray]


@pytest.fixture(
    scope="module",
    params=sorted(path.name.removesuffix(".forward.npz") for path in RECORDINGS.glob("*.forward.npz")),
)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Detector, Recorded, torch.Tensor]]:
    recorded = recording(f"{request.param}.forward")
    seed, height, width = recorded["image/seed_h_w"].tolist()
    image = torch.from_numpy(fill.image(seed, height, width))
    assert difference(image[0, :, ::16, ::16], recorded["image/slice"]) == 0
    with torch.no_grad():
        model = filled_model(request.param)
        levels = model.extract_features(image)
        model.extract_features = lambda images: list(levels)  # type: ignore[method-assign]  # once for all tests
        yield model, recorded, image


def test_features_and_proposals(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    model, recorded, image = case
    stages = model.backbone(image)
    levels = model.extract_features(image)
    logits, deltas = model.rpn(levels)
    gaps = {f"backbone/{i}": map_difference(x, recorded, f"backbone/{i}") for i, x in enumerate(stages)}
    if model.rfp is not None:
        gaps |= {
            name: map_difference(x, recorded, name) for name, x in recursion(model, model.rfp, image, stages).items()
        }
    gaps |= {f"neck/{i}": map_difference(x, recorded, f"neck/{i}") for i, x in enumerate(levels)}
    gaps |= {f"rpn_cls/{i}": map_difference(x, recorded, f"rpn_cls/{i}") for i, x in enumerate(logits)}
    gaps |= {f"rpn_reg/{i}": map_difference(x, recorded, f"rpn_reg/{i}") for i, x in enumerate(deltas)}
    print(f"maps to {max(gaps.values()):.1e} of their maximum")
    assert {name: gap for name, gap in gaps.items() if gap > MAPS} == {}

    proposals = model.rpn.propose(levels, [image.shape[-2:]])[0]
    found = match_proposals(proposals, recorded["proposals"])
    print(f"proposals: {found}")
    assert len(proposals.boxes) == len(recorded["proposals"])
    assert found.share >= 0.97


def recursion(model: Detector, rfp: RFP, image: torch.Tensor, stages: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The intermediate maps of the recursive pyramid, by their recorded names."""
    first = model.neck(stages)
    feedback = [rfp.aspp(level) for level in first]
    again = rfp.backbones[0](image, feedback[1:4])
    second = model.neck(again)
    maps = {f"rfp/step0_fpn/{i}": x for i, x in enumerate(first)}
    maps |= {f"rfp/aspp/{i}": feedback[i] for i in range(1, 5)}
    maps |= {f"rfp/step1_backbone/{i}": x for i, x in enumerate(again)}
    maps |= {f"rfp/step1_fpn/{i}": x for i, x in enumerate(second)}
    return maps | {f"rfp/fusion_weight/{i}": rfp.fusion(x).sigmoid() for i, x in enumerate(second)}


def semantic_feature(model: Detector, levels: list[torch.Tensor]) -> torch.Tensor | None:
    """The embedded semantic feature, where the cascade has that branch."""
    head = model.cascade.semantic_head if isinstance(model.cascade, HTC) else None
    return None if head is None else head(levels)[1]


def test_semantic_branch(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    model, recorded, image = case
    head = model.cascade.semantic_head if isinstance(model.cascade, HTC) else None
    assert (head is not None) == ("semantic_pred" in recorded)
    if head is not None:
        shared, embedded = head(model.extract_features(image))
        assert map_difference(head.predict(shared), recorded, "semantic_pred") < MAPS
        assert map_difference(embedded, recorded, "semantic_feat") < MAPS


def test_cascade_on_recorded_proposals(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    model, recorded, image = case
    cascade = model.cascade
    assert isinstance(cascade, HTC | CascadeRCNN)
    levels = model.extract_features(image)
    semantic = semantic_feature(model, levels)
    proposals = torch.from_numpy(recorded["fixed/proposals"])
    plain = pyramid_roi_align(levels[:4], boxes_to_rois([proposals]), output_size=7, strides=(4, 8, 16, 32))
    assert difference(plain[:8, ::32], recorded["fixed/bbox_roi_feat_no_semantic"]) < 1e-3
    boxes = [proposals]
    for t, stage in enumerate(cascade.box_stages):
        logits, deltas = stage(levels, semantic, boxes_to_rois(boxes))
        boxes = stage.refine(boxes, deltas, [image.shape[-2:]])
        gaps = (
            difference(logits, recorded[f"fixed/cls_score/{t}"]),
            difference(deltas, recorded[f"fixed/bbox_pred/{t}"]),
            difference(boxes[0], recorded[f"fixed/refined/{t}"]),
        )
        print(f"stage {t}: logits to {gaps[0]:.1e}, deltas to {gaps[1]:.1e}, boxes to {gaps[2]:.1e} px")
        assert gaps[0] < MAPS * np.abs(recorded[f"fixed/cls_score/{t}"]).max() + 1e-5, f"class logits of stage {t}"
        assert gaps[1] < MAPS * np.abs(recorded[f"fixed/bbox_pred/{t}"]).max() + 1e-5, f"deltas of stage {t}"
        assert gaps[2] < 2e-2, f"boxes of stage {t}"


def test_mask_logits_on_recorded_proposals(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    model, recorded, image = case
    cascade = model.cascade
    if not isinstance(cascade, HTC):
        assert "fixed/mask_logits/0" not in recorded
        return
    levels = model.extract_features(image)
    semantic = semantic_feature(model, levels)
    rois = boxes_to_rois([torch.from_numpy(recorded["fixed/proposals"][:8])])
    x = roi_feature(levels, semantic, rois, output_size=14)
    assert difference(x[:4, ::32], recorded["fixed/mask_roi_feat"]) < 1e-3
    for t, feature in enumerate(cascade.mask_features(x, 3)):
        expected = recorded[f"fixed/mask_logits/{t}"]
        gap = difference(cascade.mask_heads[t].predict(feature)[:, ::20], expected)
        print(f"mask logits of stage {t} to {gap:.1e}")
        assert gap < MAPS * np.abs(expected).max() + 1e-5
        labels = torch.arange(8)
        one_class = cascade.mask_heads[t].predict_classes(feature, labels)
        torch.testing.assert_close(one_class, cascade.mask_heads[t].predict(feature)[labels, labels])


@pytest.mark.parametrize("case", OF_EACH_CASCADE, indirect=True)
def test_detections(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    model, recorded, image = case
    check_detections(model.predict(image)[0], recorded, "final")


@pytest.mark.parametrize("case", OF_EACH_CASCADE[:2], indirect=True)
def test_detections_in_an_image_of_another_size(case: tuple[Detector, Recorded, torch.Tensor]) -> None:
    """It fills a part of the canvas. The semantic branch, which the third one lacks, does not know of sizes."""
    model, recorded, image = case
    sizes, original_sizes = (
        [tuple(recorded[f"final_rescaled/{name}"].tolist())] for name in ("img_shape", "ori_shape")
    )
    (results,) = model.predict(image, sizes=sizes, original_sizes=original_sizes)
    check_detections(results, recorded, "final_rescaled")


def check_detections(results: Instances, recorded: Recorded, kind: str) -> None:
    found = match(results.boxes, results.scores, results.labels, recorded, kind)
    print(f"{kind}: {found}")
    assert len(results) == len(recorded[f"{kind}/boxes"])
    assert found.share >= 0.97
    if f"{kind}/mask_area" not in recorded:
        assert results.masks is None
        return
    areas = mask_area_excess(results, found, recorded[f"{kind}/mask_area"])
    expected = coco_mask.decode(json.loads(str(recorded[f"{kind}/mask_rle_json"])))
    masks = results.masks
    assert masks is not None
    pixels = (masks[found.ours] != torch.from_numpy(expected).permute(2, 0, 1).bool()).flatten(1).sum(dim=1)
    worst = int(pixels[found.good].max())
    print(f"masks differ in {worst} pixels at most, {int(pixels[found.good].sum())} in all")
    assert areas <= 0, "mask areas differ by more than 1 % + 3 pixels"
    assert worst <= 10, "pixels of a mask"
