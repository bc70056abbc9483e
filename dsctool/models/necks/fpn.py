"""Feature pyramid network (Lin et al. 2017): P2 to P6, strides 4 to 64."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.checkpointing import checkpointed
from dsctool.models.conv3x3 import Conv3x3
from dsctool.models.init import init_xavier

STRIDES = (4, 8, 16, 32, 64)
"""Pixels of the image per cell of P2, P3, P4, P5, P6."""


class FPN(nn.Module):
    """Lateral 1x1 convolutions, nearest-neighbour top-down path, 3x3 output convolutions; no norm, no activation.

    checkpoint: training keeps none of its activations, and computes them again for their gradients.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output_convs = nn.ModuleList(Conv3x3(channels, channels) for _ in in_channels)
        init_xavier(*self.lateral_convs, *self.output_convs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """C2..C5 -> P2..P6, each ``(N, channels, h, w)``; P6 is every second cell of P5."""
        return checkpointed(self._levels, features, within=self, when=self.checkpoint)

    def _levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features, strict=True)]
        for finer in reversed(range(len(laterals) - 1)):
            coarser = F.interpolate(laterals[finer + 1], size=laterals[finer].shape[-2:], mode="nearest")
            laterals[finer] = laterals[finer] + coarser
        outputs = [conv(x) for conv, x in zip(self.output_convs, laterals, strict=True)]
        return [*outputs, F.max_pool2d(outputs[-1], kernel_size=1, stride=2)]
