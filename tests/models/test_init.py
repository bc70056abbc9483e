"""Weights before the first step, by what the configuration says of them, over cascades, RFP and SAC."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsctool.interop.loading import load_backbone_weights
from dsctool.models.backbones.resnet import ResNet
from dsctool.models.backbones.sac import SwitchableAtrousConv, standardised
from dsctool.models.detector import Detector
from dsctool.models.init import init_kaiming, init_zeros
from dsctool.models.roi.mask_head import MaskHead
from tests.models.tiny import one_box, tiny_detector

CASCADES = {"htc": "htc_tiny", "dsc": "dsc_tiny", "cascade_rcnn": "cascade_mask_rcnn_tiny"}
NECKS = {"fpn": None, "rfp": False, "shared rfp": True}
"""Whether the passes share a backbone."""
SAC = ("model.backbone.sac={}", "model.backbone.weight_standardisation=true")
WIDE = ("model.num_classes=20", "model.neck.channels=32", "model.cascade.mask_head.channels=32")
"""Enough weights for their statistics to say something."""
PUBLISHED_START = ("model.neck.rfp.aspp_init=kaiming", "model.neck.rfp.feedback_init=zeros")


def detector(cascade: str, neck: str, sac: bool, *, published: bool) -> Detector:
    init, feedback = ("kaiming", "zeros") if published else ("default", "default")
    shared = NECKS[neck]
    words = [*WIDE, f"model.cascade.mask_head.init={init}", *(SAC if sac else ())]
    if shared is not None:
        words += [f"model.neck.rfp.{key}" for key in (f"aspp_init={init}", f"feedback_init={feedback}")]
        words += [f"model.neck.rfp.share_backbone={str(shared).lower()}"]
    return tiny_detector(CASCADES[cascade], words)


def check(layer: nn.Module, *, kaiming: bool) -> None:
    """Kaiming normal by fan out with zero biases, or PyTorch's default: uniform by fan in, biases too."""
    weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    taps = weight[0, 0].numel()
    # Of a convolution (out, in); of a transposed one (in, out), which PyTorch counts as if it were none.
    expected = sqrt(2 / (taps * weight.shape[0])) if kaiming else 1 / sqrt(3 * taps * weight.shape[1])
    error = 5 * expected / sqrt(2 * weight.numel())  # five standard deviations of a standard deviation
    assert float(weight.std()) == pytest.approx(expected, abs=error)
    assert abs(float(weight.mean())) < 5 * expected / sqrt(weight.numel())
    bound = 1 / sqrt(taps * weight.shape[1])
    assert bool((weight.abs() <= bound).all()) == (not kaiming)
    assert bool(bias.any()) == (not kaiming)


def is_zero(layer: nn.Module) -> bool:
    return not any(bool(parameter.any()) for parameter in layer.parameters())


def feedback_inputs(model: Detector) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith(".rfp_conv")]


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("sac", [False, True])
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("cascade", CASCADES)
def test_first_weights(cascade: str, neck: str, sac: bool, published: bool) -> None:
    model = detector(cascade, neck, sac, published=published)
    heads = [module for module in model.modules() if isinstance(module, MaskHead)]
    assert len(heads) == (4 if cascade == "dsc" else 3)
    for head in heads:
        check(head.upsample, kaiming=published)
        check(head.logits, kaiming=published)
        for conv in head.convs:
            check(conv, kaiming=True)

    inputs = feedback_inputs(model)
    assert len(inputs) == (0 if neck == "fpn" else 3)
    for conv in inputs:
        assert is_zero(conv) == published
        if not published:
            check(conv, kaiming=False)
    if model.rfp is not None:
        assert is_zero(model.rfp.fusion), "the passes weigh the same"
        for branch in model.rfp.aspp.branches:
            check(branch, kaiming=published)

    switching = [module for module in model.modules() if isinstance(module, SwitchableAtrousConv)]
    assert len(switching) == (0 if not sac else 12 if neck == "rfp" else 6)
    for layer in switching:
        assert_switched_off(layer)


def assert_switched_off(layer: SwitchableAtrousConv) -> None:
    """The switch is 1 everywhere and what else is new is 0, so that the layer is the plain convolution."""
    assert torch.equal(layer.switch.get_parameter("bias"), torch.ones(1))
    assert not layer.switch.weight.any()
    assert not layer.weight_diff.any()
    for conv in (layer.pre_context, layer.post_context, layer.offset_s, layer.offset_l):
        assert conv is not None
        assert is_zero(conv)
    start = standardised(layer.weight, layer.weight_gamma, layer.weight_beta)
    torch.testing.assert_close(start, layer.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", ["true", "false"])
@pytest.mark.parametrize("sac", [False, True])
@pytest.mark.parametrize("cascade", CASCADES)
def test_training_starts_from_what_imagenet_taught(tmp_path: Path, cascade: str, sac: bool, shared: str) -> None:
    """With zero feedback every pass of RFP, with SAC or without it, is the plain backbone whose weights were loaded."""
    words = [*PUBLISHED_START, f"model.neck.rfp.share_backbone={shared}", *(SAC if sac else ())]
    model = tiny_detector(CASCADES[cascade], [*words, "model.backbone.norm=batch"]).eval()
    torch.manual_seed(5)
    plain = ResNet(depth=18, stem_channels=8).eval()
    torch.save(plain.state_dict(), tmp_path / "imagenet.pth")
    for backbone in model.backbones:
        load_backbone_weights(backbone, str(tmp_path / "imagenet.pth"))
        for layer in backbone.modules():
            if isinstance(layer, SwitchableAtrousConv):
                assert_switched_off(layer)
    assert all(is_zero(conv) for conv in feedback_inputs(model))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, expected in zip(model.extract_features(image), model.neck(plain(image)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shared", ["true", "false"])
@pytest.mark.parametrize("cascade", CASCADES)
def test_zero_feedback_learns_at_once_and_what_is_before_it_one_step_later(cascade: str, shared: str) -> None:
    model = tiny_detector(CASCADES[cascade], [*PUBLISHED_START, f"model.neck.rfp.share_backbone={shared}"]).train()
    assert model.rfp is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    image = torch.randn(1, 3, 64, 64)

    def gradients() -> tuple[list[Tensor], list[Tensor]]:
        """Of the feedback's convolutions, and of ASPP behind them."""
        optimizer.zero_grad()
        torch.stack(list(model.losses(image, [one_box(64, 64)]).values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert model.rfp is not None
        layers = feedback_inputs(model), model.rfp.aspp.branches
        first, second = ([conv.get_parameter("weight").grad for conv in convs] for convs in layers)
        return first, second  # type: ignore[return-value]

    feedback, aspp = gradients()
    assert all(bool(gradient.any()) for gradient in feedback)
    assert not any(bool(gradient.any()) for gradient in aspp)
    optimizer.step()
    assert not any(is_zero(conv) for conv in feedback_inputs(model))
    _, aspp = gradients()
    assert all(bool(gradient.any()) for gradient in aspp)


@pytest.mark.parametrize("bias", [True, False])
def test_zeros_with_and_without_a_bias(bias: bool) -> None:
    conv, linear = nn.Conv2d(3, 4, 1, bias=bias), nn.Linear(3, 4, bias=bias)
    init_kaiming(conv, linear)
    init_zeros(conv, linear)
    assert is_zero(conv)
    assert is_zero(linear)
