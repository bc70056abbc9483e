"""Recursive feature pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsctool.models.backbones.resnet import ResNet
from dsctool.models.necks.fpn import FPN
from dsctool.models.necks.rfp import ASPP, RFP
from tests.models.tiny import one_box, tiny_detector
from tests.parity.published import difference, recording

RFP_ON = ("model.neck.rfp={}",)


def test_aspp_equals_its_recording() -> None:
    recorded = recording("component_aspp")
    aspp = ASPP(16, 24, dilations=(1, 3, 6, 1))
    aspp.load_state_dict(
        {
            name.removeprefix("param/aspp.").join(["branches.", ""]): torch.from_numpy(value)
            for name, value in recorded.items()
            if name.startswith("param/")
        }
    )
    gap = difference(aspp(torch.from_numpy(recorded["input"])), recorded["output"])
    assert gap < 1e-5 * abs(recorded["output"]).max()


def test_fusion_equals_its_recording() -> None:
    recorded = {name: torch.from_numpy(value) for name, value in recording("component_rfp_fusion").items()}
    rfp = RFP(channels=16, aspp_dilations=(1, 3, 6, 1), backbones=[])
    rfp.fusion.weight.data.copy_(recorded["rfp_weight"])
    rfp.fusion.get_parameter("bias").data.copy_(recorded["rfp_bias"])
    fused = rfp.fuse([recorded["current"]], [recorded["previous"]])[0]
    assert difference(fused, recorded["output"].numpy()) < 1e-5


def test_without_feedback_and_with_equal_backbones_it_is_the_fpn() -> None:
    first = ResNet(depth=18, stem_channels=8).eval()
    second = ResNet(depth=18, stem_channels=8, feedback_channels=16).eval()
    second.load_state_dict(first.state_dict(), strict=False)
    for stage in (2, 3, 4):
        conv = second.get_submodule(f"layer{stage}.0.rfp_conv")
        nn.init.zeros_(conv.get_parameter("weight"))
        nn.init.zeros_(conv.get_parameter("bias"))
    fpn = FPN(first.channels, 16)
    rfp = RFP(channels=16, aspp_dilations=(1, 3, 6, 1), backbones=[second])
    image = torch.randn(1, 3, 64, 96)
    levels = fpn(first(image))
    for ours, plain in zip(rfp(image, levels, fpn=fpn, backbone=first), levels, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overrides", [(), ("model.neck.rfp.steps=3",), ("model.neck.rfp.share_backbone=true",)])
def test_every_parameter_of_a_recursive_detector_gets_a_gradient(overrides: tuple[str, ...]) -> None:
    model = tiny_detector("detectors_tiny", [*RFP_ON, *overrides]).train()
    losses = model.losses(torch.randn(1, 3, 96, 96), [one_box(96, 96)])
    torch.stack(list(losses.values())).sum().backward()
    missing = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ("overrides", "own_backbones"),
    [((), 1), (("model.neck.rfp.steps=3",), 2), (("model.neck.rfp.share_backbone=true",), 0)],
)
def test_passes_share_or_own_their_backbones(overrides: tuple[str, ...], own_backbones: int) -> None:
    model = tiny_detector("detectors_tiny", [*RFP_ON, *overrides])
    assert model.rfp is not None
    assert len(model.rfp.backbones) == own_backbones
    shared = own_backbones == 0
    assert any("rfp_conv" in name for name, _ in model.backbone.named_parameters()) == shared
    with torch.no_grad():
        assert [x.shape[-1] for x in model.extract_features(torch.randn(1, 3, 96, 96))] == [24, 12, 6, 3, 2]
