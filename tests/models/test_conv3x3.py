"""The 3x3 convolution of necks and heads: the same numbers by either way, never by filters of yesterday."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from dsctool.config.loading import load_config
from dsctool.engine.optim import build_optimizer
from dsctool.models.build import build_detector
from dsctool.models.conv3x3 import Conv3x3
from dsctool.models.detector import Detector
from dsctool.ops import winograd
from dsctool.structures import Detections, Targets
from tests.models.tiny import NARROW

MODELS = ("cascade_mask_rcnn_tiny", "htc_tiny", "detectors_tiny", "fast_dsc_tiny", "dsc_tiny", "dsc_detectors_tiny")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the few channels of small models."""
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 1)


def plain(conv: Conv3x3, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, conv.weight, conv.bias, padding=1)


@pytest.mark.usefixtures("always")
def test_with_and_without_gradients() -> None:
    conv, x = Conv3x3(5, 7), torch.randn(2, 5, 9, 11)
    with torch.no_grad():
        found = conv(x)
        assert not torch.equal(found, plain(conv, x)), "this is the other way"
        torch.testing.assert_close(found, plain(conv, x), rtol=1e-5, atol=1e-5)
    assert torch.equal(conv(x), plain(conv, x))
    assert set(conv.state_dict()) == {"weight", "bias"}


@pytest.mark.usefixtures("always")
def test_filters_of_one_precision_serve_no_other() -> None:
    conv, x = Conv3x3(4, 4).eval(), torch.randn(1, 4, 9, 11)
    with torch.no_grad():
        found = conv(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = conv(x)
            assert half.dtype == torch.bfloat16
            assert torch.equal(half, plain(conv, x))
        assert torch.equal(conv(x), found)


def step(conv: Conv3x3, optimizer: torch.optim.Optimizer) -> None:
    conv(torch.randn(1, 4, 6, 6)).square().sum().backward()
    with torch.no_grad():
        conv(torch.randn(1, 4, 6, 6))  # a detection while there are gradients
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


CHANGES: dict[str, Callable[[Conv3x3], object]] = {
    "a step of SGD": lambda conv: step(conv, torch.optim.SGD(conv.parameters(), lr=0.1, momentum=0.9)),
    "a fused step": lambda conv: step(conv, torch.optim.AdamW(conv.parameters(), lr=0.1, fused=True)),
    "a step in train mode": lambda conv: (
        conv.train(), step(conv, torch.optim.SGD(conv.parameters(), lr=0.1)), conv.eval(),
    ),
    "loading": lambda conv: conv.load_state_dict({k: v + 1 for k, v in conv.state_dict().items()}),
    "writing, then eval()": lambda conv: (conv.weight.data.add_(1), conv.eval()),
    "another type and back": lambda conv: (conv.double(), conv.weight.data.add_(1), conv.float()),
}  # fmt: skip


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(CHANGES))
def test_filters_follow_the_weight(name: str) -> None:
    torch.manual_seed(0)
    conv, x = Conv3x3(4, 4).eval(), torch.randn(1, 4, 8, 8)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(conv(x), plain(conv, x), rtol=1e-4, atol=1e-4)
        CHANGES[name](conv)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), plain(conv, x), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("always")
def test_a_copy_has_filters_of_its_own() -> None:
    conv, x = Conv3x3(4, 4).eval(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        conv(x)
        other = copy.deepcopy(conv)
        other.weight.mul_(2)
        torch.testing.assert_close(other(x), plain(other, x), rtol=1e-4, atol=1e-4)


def detect(model: Detector) -> Detections:
    torch.manual_seed(1)
    return model.detect(torch.randn(1, 3, 96, 96))[0]


def same(found: Detections, wanted: Detections) -> None:
    torch.testing.assert_close(found.boxes, wanted.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.labels, wanted.labels)
    assert found.mask_probs is not None
    torch.testing.assert_close(found.mask_probs, wanted.mask_probs, rtol=1e-3, atol=1e-4)


FEW = (
    "model.rpn.train_max_proposals=40",
    "model.rpn.test_max_proposals=40",
    "model.cascade.samples=32",
    "postprocess.max_per_image=20",
)


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "adamw") for name in MODELS), ("detectors_tiny", "sgd")])
def test_detectors_by_either_way_while_they_train(name: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cascade, after each of some steps, whose evaluations keep filters."""
    torch.manual_seed(0)
    model = build_detector(
        load_config(name, ["model.num_classes=3", f"optim.kind={optimizer}", "optim.lr=0.0005", *NARROW, *FEW])
    )
    steps = build_optimizer(model, model.config.optim)
    box, mask = torch.tensor([[8.0, 8, 60, 70]]), torch.zeros(1, 96, 96, dtype=torch.bool)
    mask[0, 8:70, 8:60] = True
    targets = [Targets(box, torch.tensor([1]), mask, semantic=torch.zeros(12, 12, dtype=torch.int64))]
    for _ in range(2):
        model.train()
        torch.stack(list(model.losses(torch.randn(1, 3, 96, 96), targets).values())).sum().backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
        model.eval()
        wanted = detect(model)  # too small for the other way
        with monkeypatch.context() as patch:
            patch.setattr(winograd, "FEWEST_CHANNELS", 1)
            patch.setattr(winograd, "FEWEST_TILES", 1)
            same(detect(model), wanted)
            same(detect(model), wanted)  # by the filters that were kept
