"""Pretrained backbones of a recursive pyramid."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision

from dsctool.config.loading import load_config
from dsctool.engine.setup import _load_first_weights
from dsctool.models.build import build_detector


def test_every_backbone_starts_from_the_pretrained_filters(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    config = load_config(
        "detectors_tiny",
        [
            "model.backbone.stem_channels=64",
            "model.backbone.norm=batch",
            f"model.backbone.weights={tmp_path / 'resnet18.pth'}",
        ],
    )
    model = build_detector(config, num_classes=3)
    lines = _load_first_weights(model, config)
    state = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert model.rfp is not None
    for backbone in (model.backbone, *model.rfp.backbones):
        conv = backbone.layer3[0].conv2
        assert torch.equal(conv.weight, state["layer3.0.conv2.weight"])
        standardised = conv.standardise(conv.weight, conv.weight_gamma, conv.weight_beta)
        torch.testing.assert_close(standardised, conv.weight, rtol=1e-4, atol=1e-6)
    assert sum("loaded" in line for line in lines) == 2
