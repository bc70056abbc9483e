"""What a run starts from."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision

from dsctool.config.loading import load_config
from dsctool.engine.setup import prepare
from tests.models.tiny import SMALL


def test_every_backbone_of_a_recursive_pyramid_starts_from_the_pretrained_filters(
    tmp_path: Path, synthetic_root: Path
) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    config = load_config(
        "detectors_tiny",
        [
            *SMALL,
            "model.num_classes=null",
            "model.backbone.stem_channels=64",
            "model.backbone.norm=batch",
            f"model.backbone.weights={tmp_path / 'resnet18.pth'}",
            "train.eval_interval=0",
        ],
    )
    setup = prepare(config, data=synthetic_root, device=torch.device("cpu"))
    state = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert len(setup.model.backbones) == 2
    for backbone in setup.model.backbones:
        conv = backbone.layer3[0].conv2
        assert torch.equal(conv.weight, state["layer3.0.conv2.weight"])
        standardised = conv.standardise(conv.weight, conv.weight_gamma, conv.weight_beta)
        torch.testing.assert_close(standardised, conv.weight, rtol=1e-4, atol=1e-6)
    assert sum("loaded" in line for line in setup.notes) == 2
