"""ResNets: the same function as torchvision's, and what stays frozen."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from dsctool import build_model
from dsctool.models.backbones.resnet import ResNet, group_norm
from tests.models.undrawn import undrawn_weights


@pytest.mark.parametrize(
    ("name", "depth", "groups", "width"),
    [("resnet18", 18, 1, 64), ("resnet34", 34, 1, 64), ("resnet50", 50, 1, 64), ("resnext101_64x4d", 101, 64, 4)],
)
def test_equals_torchvision(name: str, depth: int, groups: int, width: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = ResNet(depth=depth, groups=groups, width_per_group=width).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(state, strict=True)
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 64)
        stages = ours(image)
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for stage, layer in zip(stages, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
            expected = layer(expected)
            torch.testing.assert_close(stage, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert tuple(x.shape[1] for x in stages) == ours.channels


@pytest.mark.parametrize(("frozen_stages", "first_trainable"), [(-1, "conv1"), (0, "layer1"), (1, "layer2"), (4, None)])
def test_frozen_stages(frozen_stages: int, first_trainable: str | None) -> None:
    model = ResNet(depth=18, frozen_stages=frozen_stages)
    trainable = [name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad]
    assert (trainable[0] if trainable else None) == first_trainable


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_norm(frozen: bool) -> None:
    model = ResNet(depth=18, stem_channels=8, frozen_stages=-1, freeze_norm_statistics=frozen).train()
    before = model.layer4[0].bn1.running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(before, model.layer4[0].bn1.running_mean) == frozen
    assert model.layer4[0].bn1.weight.requires_grad


@pytest.mark.parametrize("channels", [8, 32, 48, 64, 512])
def test_group_norm_divides_the_channels(channels: int) -> None:
    norm = group_norm(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm(torch.randn(1, channels, 2, 2)).shape == (1, channels, 2, 2)


def test_narrow_channels_last_gradients() -> None:
    """Strided 1x1 convolutions of few channels corrupt memory here (oneDNN's backward pass in PyTorch 2.14)."""
    torch.manual_seed(0)
    model = ResNet(depth=18, stem_channels=8, norm=group_norm, frozen_stages=-1)
    image = torch.randn(1, 3, 416, 416)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model.zero_grad()
        sum(x.square().mean() for x in model(image.contiguous(memory_format=memory_format))).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for contiguous, channels_last in zip(*gradients, strict=True):
        torch.testing.assert_close(channels_last, contiguous, rtol=1e-3, atol=1e-3 * contiguous.abs().max().item())


@pytest.mark.parametrize("name", ["htc_r50_fpn_1x_coco", "detectors_htc_r50_1x_coco", "detectors_tiny"])
def test_no_strided_pointwise_convolution(name: str) -> None:
    with torch.device("meta"), undrawn_weights():
        model = build_model(name)
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1), path
