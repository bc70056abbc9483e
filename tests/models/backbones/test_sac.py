"""Weight-standardised and switchable atrous convolution."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dsctool.models.backbones.resnet import ResNet
from dsctool.models.backbones.sac import (
    DeformableConv,
    StandardisedConv,
    SwitchableAtrousConv,
    calibrate,
    standardised,
)
from tests.parity.published import difference, recording

SAC_CASES = [
    "deform0_stride1_groups1",
    "deform0_stride1_groups2",
    "deform0_stride2_groups1",
    "deform0_stride2_groups2",
    "deform1_stride1_groups1",
    "deform1_stride2_groups1",
]


def parameters(recorded: dict, prefix: str = "param/") -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): torch.from_numpy(v) for k, v in recorded.items() if k.startswith(prefix)}


@pytest.mark.parametrize("case", SAC_CASES)
def test_sac_equals_its_recording(case: str) -> None:
    recorded = recording(f"component_sac_{case}")
    sac = SwitchableAtrousConv(
        8,
        12,
        kernel_size=3,
        stride=int(recorded["stride"]),
        groups=int(recorded["groups"]),
        deformable=bool(recorded["use_deform"]),
    )
    wanted = parameters(recorded)
    own = sac.state_dict()
    sac.load_state_dict({name: value for name, value in wanted.items() if name in own}, strict=True)
    x = torch.from_numpy(recorded["input"]).requires_grad_()
    out = sac(x)
    gap = difference(out, recorded["output"])
    print(f"{case}: output to {gap:.1e}")
    assert gap < 1e-5 * abs(recorded["output"]).max()
    out.backward(torch.from_numpy(recorded["grad_output"]))
    assert x.grad is not None
    assert difference(x.grad, recorded["grad_input"]) < 1e-4 * abs(recorded["grad_input"]).max()
    for name, expected in parameters(recorded, "grad/").items():
        if name in own:
            grad = sac.get_parameter(name).grad
            assert grad is not None, name
            scale = max(float(expected.abs().max()), 1e-3)
            assert difference(grad, expected.numpy()) < 1e-4 * scale, f"gradient of {name}"


@pytest.mark.parametrize("groups", [1, 2])
def test_standardised_convolution_equals_its_recording(groups: int) -> None:
    recorded = recording(f"component_aws_groups{groups}")
    conv = StandardisedConv(8, 12, kernel_size=3, stride=int(recorded["stride"]), groups=groups)
    wanted = parameters(recorded)
    bias = wanted.pop("bias", torch.zeros(12))
    conv.load_state_dict(wanted, strict=True)
    x = torch.from_numpy(recorded["input"]).requires_grad_()
    out = conv(x) + bias.view(1, -1, 1, 1)  # a recorded layer may have a bias, a backbone's has none
    assert difference(out, recorded["output"]) < 1e-5 * abs(recorded["output"]).max()
    out.backward(torch.from_numpy(recorded["grad_output"]))
    assert x.grad is not None
    assert conv.weight.grad is not None
    assert difference(x.grad, recorded["grad_input"]) < 1e-4 * abs(recorded["grad_input"]).max()
    assert difference(conv.weight.grad, recorded["grad/weight"]) < 1e-4 * abs(recorded["grad/weight"]).max()


def test_calibration_equals_its_recording_and_keeps_the_weight() -> None:
    recorded = recording("component_aws_load_plain")
    conv = StandardisedConv(8, 12, kernel_size=3)
    conv.weight.data.copy_(torch.from_numpy(recorded["weight"]))
    calibrate(conv)
    assert difference(conv.weight_gamma, recorded["weight_gamma"]) < 1e-6
    assert difference(conv.weight_beta, recorded["weight_beta"]) < 1e-6
    standardised = conv.standardise(conv.weight, conv.weight_gamma, conv.weight_beta)
    torch.testing.assert_close(standardised, conv.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("deformable", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_fresh_sac_is_the_plain_standardised_convolution(deformable: bool, stride: int, device: torch.device) -> None:
    sac = SwitchableAtrousConv(8, 12, kernel_size=3, stride=stride, deformable=deformable).to(device)
    plain = StandardisedConv(8, 12, kernel_size=3, stride=stride).to(device)
    own = plain.state_dict()
    plain.load_state_dict({name: value for name, value in sac.state_dict().items() if name in own})
    x = torch.randn(2, 8, 13, 10, device=device)
    torch.testing.assert_close(sac(x), plain(x), rtol=1e-5, atol=1e-5)


def w_prime(conv: StandardisedConv) -> torch.Tensor:
    return conv.standardise(conv.weight, conv.weight_gamma, conv.weight_beta)


@pytest.fixture
def conv() -> StandardisedConv:
    """In eval mode, its W' kept."""
    conv = StandardisedConv(4, 4, kernel_size=3).eval()
    with torch.no_grad():
        assert w_prime(conv) is w_prime(conv)
    return conv


def stepped_in_eval_mode(conv: StandardisedConv, **options: bool) -> None:
    """With a detection at every place where one can be."""
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, **options)
    loss = conv(torch.randn(1, 4, 5, 5)).square().sum()
    loss.backward()
    with torch.no_grad():
        w_prime(conv)
    optimizer.step()


VOID = {
    "a fused step in eval mode": lambda conv: stepped_in_eval_mode(conv, fused=True),
    "a step tensor by tensor": lambda conv: stepped_in_eval_mode(conv, foreach=False),
    "loading": lambda conv: conv.load_state_dict({k: v + torch.rand_like(v) for k, v in conv.state_dict().items()}),
    "loading other tensors": lambda conv: conv.load_state_dict(
        {k: v + torch.rand_like(v) for k, v in conv.state_dict().items()}, assign=True
    ),
    "another type": lambda conv: conv.double(),
    "written by hand in train mode": lambda conv: conv.train().weight.data.normal_(),
    "written by hand, then eval": lambda conv: (conv.weight.data.normal_(), conv.eval()),
    "calibration": lambda conv: (conv.weight.data.normal_(), calibrate(conv)),
    "a copy that goes its own way": lambda conv: copy.deepcopy(conv),
}
"""What ends the life of a kept W'; it may give the convolution to go on with."""


@pytest.mark.parametrize("event", VOID)
def test_what_voids_the_kept_weight(event: str, conv: StandardisedConv) -> None:
    with torch.no_grad():
        kept = w_prime(conv)
    given = VOID[event](conv)
    conv = given if isinstance(given, StandardisedConv) else conv
    with torch.no_grad():
        now = w_prime(conv)
        assert now is not kept
        assert torch.equal(now, standardised(conv.weight, conv.weight_gamma, conv.weight_beta))
    assert w_prime(conv).requires_grad, "with gradients it is part of the graph"


@torch.inference_mode()
def test_the_kept_weight_serves_image_after_image(conv: StandardisedConv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsctool.models.backbones.sac.standardised", None)
    assert torch.equal(conv(torch.ones(1, 4, 5, 5)), conv(torch.ones(1, 4, 5, 5)))


def test_fresh_deformable_convolution_is_the_plain_one(device: torch.device) -> None:
    conv = DeformableConv(8, 12, kernel_size=3, stride=2, groups=2).to(device)
    x = torch.randn(2, 8, 13, 10, device=device)
    plain = nn.functional.conv2d(x, conv.weight, stride=2, padding=1, groups=2)
    torch.testing.assert_close(conv(x), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_feedback_joins_the_first_block_of_stages_2_to_4(depth: int) -> None:
    model = ResNet(depth=depth, stem_channels=8, feedback_channels=6, frozen_stages=-1).eval()
    names = [name for name, _ in model.named_parameters() if "rfp_conv.weight" in name]
    assert names == [f"layer{stage}.0.rfp_conv.weight" for stage in (2, 3, 4)]
    image = torch.randn(1, 3, 64, 64)
    feedback = [torch.randn(1, 6, size, size) for size in (8, 4, 2)]
    with torch.no_grad():
        with_feedback, without = model(image, feedback), model(image)
        assert torch.equal(with_feedback[0], without[0])
        assert all(not torch.equal(a, b) for a, b in zip(with_feedback[1:], without[1:], strict=True))
        assert all(bool((x >= 0).all()) for x in with_feedback), "feedback joins before the ReLU"
        for stage in (2, 3, 4):
            conv = model.get_submodule(f"layer{stage}.0.rfp_conv")
            nn.init.zeros_(conv.get_parameter("weight"))
            nn.init.zeros_(conv.get_parameter("bias"))
        for a, b in zip(model(image, feedback), without, strict=True):
            torch.testing.assert_close(a, b)


def test_a_backbone_without_feedback_inputs_refuses_feedback() -> None:
    with pytest.raises(ValueError, match="feedback"):
        ResNet(depth=18, stem_channels=8)(torch.randn(1, 3, 64, 64), [torch.randn(1, 6, s, s) for s in (8, 4, 2)])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 2)])
def test_maps_smaller_than_the_averaging_window(size: tuple[int, int]) -> None:
    assert SwitchableAtrousConv(4, 6, kernel_size=3)(torch.randn(1, 4, *size)).shape == (1, 6, *size)
