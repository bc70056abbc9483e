"""Mask head with optional mask information flow (Chen et al. 2019, section 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.init import init_kaiming
from dsctool.models.roi.fusion import FeatureFusion


class MaskHead(nn.Module):
    """Per-class mask logits at twice the RoI feature's resolution.

    With ``fusion`` the previous stage's feature joins the input.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        convs: int,
        num_classes: int,
        fusion: FeatureFusion | None = None,
        init: Literal["default", "kaiming"] = "default",
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels if i == 0 else channels, channels, 3, padding=1) for i in range(convs)
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        init_kaiming(*self.convs)
        if init == "kaiming":
            init_kaiming(self.upsample, self.logits)

    def feature(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """RoI features ``(R, C, s, s)`` -> this stage's feature ``(R, channels, s, s)``."""
        if self.fusion is not None and previous is not None:
            x = self.fusion(x, previous)
        for conv in self.convs:
            x = F.relu(conv(x), inplace=True)
        return x

    def predict(self, feature: Tensor) -> Tensor:
        """A feature -> logits of every class ``(R, K, 2s, 2s)``."""
        return self.logits(F.relu(self.upsample(feature), inplace=True))

    def predict_classes(self, feature: Tensor, labels: Tensor) -> Tensor:
        """A feature -> logits of one class per RoI ``(R, 2s, 2s)``; ``labels (R,)`` says which.

        The same numbers as ``predict(feature)[range(R), labels]``, without computing the other classes.
        """
        upsampled = F.relu(self.upsample(feature), inplace=True)
        weight = self.logits.weight[labels, :, 0, 0].unsqueeze(1)  # (R, 1, channels)
        logits = torch.bmm(weight, upsampled.flatten(2)) + self.logits.get_parameter("bias")[labels].view(-1, 1, 1)
        return logits.view(len(feature), *upsampled.shape[-2:])
