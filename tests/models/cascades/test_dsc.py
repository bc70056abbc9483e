"""The shape-guided cascade: what its switches do, whatever the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsctool.config.loading import load_config
from dsctool.models.build import build_detector
from dsctool.models.cascades.dsc import DSC
from dsctool.models.detector import Detector
from dsctool.models.losses import values
from dsctool.ops.boxes import enlarge_boxes
from dsctool.ops.roi_align import boxes_to_rois
from tests.models.tiny import one_box, tiny_detector

ABLATIONS = {
    "F-DSC": (),
    "DSC": ("model.cascade.roi_size=14",),
    "no explicit guidance": ("model.cascade.explicit_guidance=false",),
    "no implicit guidance": ("model.cascade.implicit_guidance=false",),
    "no +1": ("model.cascade.plus_one=false",),
    "no alignment": ("model.cascade.alignment=none",),
    "recomputation": ("model.cascade.alignment=recompute",),
    "clipping": ("model.cascade.roi_clipping=true",),
}


def cascade_of(model: Detector) -> DSC:
    assert isinstance(model.cascade, DSC)
    return model.cascade


def results_of(overrides: Sequence[str]) -> tuple[dict[str, float], Tensor]:
    """Losses and logits of the last stage, with weights, image and samples that are the same for all overrides."""
    model = tiny_detector("fast_dsc_tiny", ["model.cascade.samples=1000", *overrides])
    for name, parameter in model.named_parameters():  # weights by name: layouts differ
        torch.manual_seed(len(name))
        parameter.data = torch.randn_like(parameter) * 0.1
    torch.manual_seed(1)
    image, targets = torch.randn(1, 3, 64, 96), one_box(64, 96)
    losses = {name: value.item() for name, value in model.losses(image, [targets]).items()}
    boxes, features = [targets.boxes + 3], model.extract_features(image)
    guidance, logits = None, torch.zeros(0)
    for t in range(3):
        guidance, logits, _ = cascade_of(model).stage(t, features, None, boxes_to_rois(boxes), guidance)
    return losses, logits


def test_every_ablation_is_another_model() -> None:
    found = {name: results_of(overrides) for name, overrides in ABLATIONS.items()}
    for name, (losses, logits) in found.items():
        assert all(torch.tensor(value).isfinite() for value in losses.values()), name
        assert logits.isfinite().all(), name
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert found[a][0] != found[b][0], f"{a} and {b} have the same losses"


def test_guidance_without_a_switch_in_the_weights() -> None:
    layouts = {
        name: set(tiny_detector("fast_dsc_tiny", overrides).state_dict()) for name, overrides in ABLATIONS.items()
    }
    fused = {name for name in layouts["F-DSC"] if ".head.fusion." in name}
    assert fused
    assert layouts["no implicit guidance"] == layouts["F-DSC"] - fused
    assert all(layout == layouts["F-DSC"] for name, layout in layouts.items() if name != "no implicit guidance")


def test_stages_do_not_depend_on_the_order_of_the_boxes() -> None:
    model = tiny_detector("dsc_tiny").eval()
    features = model.extract_features(torch.randn(1, 3, 64, 96))
    boxes = torch.tensor([[5.0, 5.0, 30.0, 40.0], [20.0, 10.0, 90.0, 60.0], [0.0, 0.0, 12.0, 9.0]])
    order = torch.tensor([2, 0, 1])
    cascade, guidance, shuffled = cascade_of(model), None, None
    for t in range(3):
        guidance, logits, _ = cascade.stage(t, features, None, boxes_to_rois([boxes]), guidance)
        shuffled, others, _ = cascade.stage(t, features, None, boxes_to_rois([boxes[order]]), shuffled)
        torch.testing.assert_close(others, logits[order], rtol=1e-4, atol=1e-5)


def test_clipping_keeps_enlarged_boxes_inside_the_previous_ones() -> None:
    model = tiny_detector("dsc_tiny", ["model.cascade.roi_clipping=true"]).eval()
    cascade = cascade_of(model)
    features = model.extract_features(torch.randn(1, 3, 64, 96))
    boxes = [torch.tensor([[5.0, 5.0, 30.0, 40.0], [20.0, 10.0, 90.0, 60.0]])]
    guidance, _, deltas = cascade.stage(0, features, None, boxes_to_rois(boxes), None)
    deltas = deltas + torch.tensor([[9.0, 0.0, 0.0, 3.0]])
    kept = cascade._refine(0, boxes, deltas, [(64, 96)], guidance)
    enlarged, limits = enlarge_boxes(kept[0], 1.59), guidance.rois[:, 1:]
    assert (enlarged[:, :2] >= limits[:, :2] - 1e-3).all()
    assert (enlarged[:, 2:] <= limits[:, 2:] + 1e-3).all()


def test_boxes_without_area_are_harmless() -> None:
    model = tiny_detector("fast_dsc_tiny").eval()
    features = model.extract_features(torch.randn(1, 3, 64, 96))
    flat = torch.tensor([[96.0, 10.0, 96.0, 40.0], [4.0, 64.0, 40.0, 64.0], [96.0, 64.0, 96.0, 64.0]])
    found = model.detect_from(features, [flat], [(64, 96)], [(64, 96)])[0]
    assert found.scores.isfinite().all()
    assert found.mask_probs is not None
    assert found.mask_probs.isfinite().all()


@pytest.mark.parametrize("proposals", [[], [[3.0, 3.0, 20.0, 30.0]]])
def test_few_proposals(proposals: list[list[float]]) -> None:
    model = tiny_detector("dsc_tiny", ["postprocess.score_threshold=0.0"]).train()
    features = model.extract_features(torch.randn(1, 3, 64, 96))
    boxes = torch.tensor(proposals).reshape(-1, 4)
    losses = values(cascade_of(model).losses(features, [boxes], [one_box(64, 96, count=0)], [(64, 96)]))
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in model.cascade.parameters())
    with torch.no_grad():
        found = model.eval().detect_from(features, [boxes], [(64, 96)], [(64, 96)], stage_masks=True)[0]
    assert (len(found) > 0) == (len(boxes) > 0)


def test_a_batch_without_instances_leaves_the_mask_heads_statistics() -> None:
    model = tiny_detector("fast_dsc_tiny").train()
    norm = "cascade.mask_head.fusion.norm"
    before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(norm)}
    assert f"{norm}.running_var" in before
    empty = replace(one_box(96, 128, count=0), semantic=torch.full((12, 16), 255))
    losses = model.losses(torch.randn(1, 3, 96, 128), [empty])
    torch.stack(list(losses.values())).sum().backward()
    after = model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert not any(parameter.grad.any() for parameter in cascade_of(model).mask_head.parameters())


def test_stage_masks_belong_to_the_detections() -> None:
    model = tiny_detector("dsc_tiny", ["postprocess.score_threshold=0.0"]).eval()
    found = model.detect(torch.randn(1, 3, 64, 96), original_sizes=[(128, 192)], stage_masks=True)[0]
    assert len(found.stages) == 3
    for stage in found.stages:
        assert stage.boxes.shape == (len(found), 4)
        assert stage.probs.shape == (len(found), 28, 28)
        assert 0 <= stage.probs.min() <= stage.probs.max() <= 1
    assert found.stages[0].boxes[:, 2].max() > 96, "boxes are in original pixels"
    assert model.detect(torch.randn(1, 3, 64, 96))[0].stages == ()


def test_published_values_are_the_defaults() -> None:
    config = load_config("dsc_r50_fpn_1x_coco").model.cascade
    assert config.kind == "dsc"
    assert config.enlarge_ratios == (2.0, 1.59, 1.26, 1.0)
    assert config.averaged_stages == (1, 2)
    assert config.semantic.loss_average == "valid_pixels"
    assert config.mask_head.init == "kaiming"
    assert load_config("dsc_r50_fpn_1x_coco").model.rpn.keep_zero_area
    assert not config.low_quality_matches


@pytest.mark.parametrize("semantic", ["none", "instances"])
def test_any_backbone_and_neck(semantic: str) -> None:
    model = build_detector(load_config("dsc_detectors_tiny", ["model.num_classes=3", f"data.semantic={semantic}"]))
    losses = model.losses(torch.randn(1, 3, 64, 96), [one_box(64, 96)])
    assert all(value.isfinite() for value in losses.values())
    assert ("loss_semantic_seg" in losses) == (semantic == "instances")
