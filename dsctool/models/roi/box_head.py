"""Box head: two fully connected layers, a classifier and a class-agnostic box regressor."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.init import init_normal, init_xavier
from dsctool.models.roi.fusion import FeatureFusion
from dsctool.ops.precision import at_least_float32


class BoxHead(nn.Module):
    """Class logits and box deltas from RoI features (Cai & Vasconcelos 2018).

    With ``fusion`` a mask feature joins the input (DSC's implicit guidance).
    """

    def __init__(
        self, *, in_channels: int, roi_size: int, channels: int, num_classes: int, fusion: FeatureFusion | None = None
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.fc1 = nn.Linear(in_channels * roi_size**2, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.classifier = nn.Linear(channels, num_classes + 1)
        self.regressor = nn.Linear(channels, 4)
        init_xavier(self.fc1, self.fc2)
        init_normal(self.classifier, std=0.01)
        init_normal(self.regressor, std=0.001)

    def forward(self, x: Tensor, mask_feature: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(R, C, s, s)`` -> class logits ``(R, K+1)``, background last, and normalised deltas ``(R, 4)``, float32."""
        if self.fusion is not None and mask_feature is not None:
            x = self.fusion(x, mask_feature)
        hidden = F.relu(self.fc1(x.flatten(1)), inplace=True)
        hidden = F.relu(self.fc2(hidden), inplace=True)
        return at_least_float32(self.classifier(hidden)), at_least_float32(self.regressor(hidden))
