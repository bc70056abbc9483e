"""A detector small enough to train hundreds of steps in a second, and as random as a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dsctool.config.schema import Config
from dsctool.models.losses import Mean
from dsctool.structures import Detections, Targets
from dsctool.terms import Size


class FakeDetector(nn.Module):
    """Learns the colour of images; its losses draw random numbers, and batch norm keeps statistics.

    on_losses, on_detect: called with the number of the call, from 1, before it does anything.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)
        self.has_masks = False
        self.calls = {"losses": 0, "detect": 0}
        self.on_losses: Callable[[int], None] = lambda call: None
        self.on_detect: Callable[[int], None] = lambda call: None
        self.factors: dict[str, float] = {}

    def forward(
        self, images: Tensor, targets: Sequence[Targets], sizes: Sequence[Size] | None = None
    ) -> dict[str, Mean]:
        self.calls["losses"] += 1
        self.on_losses(self.calls["losses"])
        assert self.training == torch.is_grad_enabled(), "validation losses are those of eval mode"
        scores = self.head(self.norm(self.conv(images[..., ::8, ::8])).relu().mean((2, 3)))
        noise = torch.rand(scores.shape, device=scores.device)
        losses = {"loss_rpn_cls": scores.square(), "s0.loss_mask": scores * noise}
        return {name: self.factors.get(name, 1.0) * Mean(loss.sum(), loss.numel()) for name, loss in losses.items()}

    @torch.inference_mode()
    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
        semantic: bool = False,
    ) -> list[Detections]:
        self.calls["detect"] += 1
        self.on_detect(self.calls["detect"])
        assert not self.training
        box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        return [
            Detections(box, torch.tensor([0.5]), torch.tensor([0]), None, size)
            for size in original_sizes or sizes or []
        ]


Build = Callable[[FakeDetector], None]
"""What a test does to the detector before it is trained."""


def tiny_config(**train: object) -> Config:
    """A configuration for :class:`FakeDetector` on the generated set: small images, no workers, 2 images a batch."""
    values: dict[str, object] = {"epochs": 2, "batch_size": 2, "log_interval": 1, **train}
    return Config.model_validate(
        {
            "model": {"cascade": {"kind": "cascade_rcnn"}, "backbone": {"frozen_stages": -1}},
            "data": {
                "semantic": "none",
                "workers": 0,
                "group_by_aspect": False,
                "train_resize": {"short_sides": [48, 64]},
                "test_resize": {"short_sides": [48]},
            },
            "optim": {"lr": 0.5, "warmup_steps": 3, "milestones": [1]},
            "train": values,
        }
    )
