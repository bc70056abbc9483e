"""How the mask feature of one stage joins the input of another head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.init import init_kaiming


class RoiBatchNorm(nn.BatchNorm2d):
    """Batch norm over RoIs; a batch without any leaves the running statistics as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """``(R, C, s, s)`` -> the same shape; R may be 0."""
        if len(x):
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False)


class FeatureFusion(nn.Module):
    """Adds another stage's feature through a 1x1 convolution and a ReLU, averaged to the input's cells.

    This is HTC's mask information flow (Chen et al. 2019, equation 5) and, with ``norm``, DSC's implicit
    guidance, the weights w^m and w^b of its equations.
    """

    def __init__(self, *, channels: int, out_channels: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=not norm)
        self.norm = RoiBatchNorm(out_channels) if norm else None
        init_kaiming(self.conv)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """``x (R, out_channels, s, s)`` plus what comes of ``feature (R, channels, s', s')``."""
        joining = self.conv(feature)
        if self.norm is not None:
            joining = self.norm(joining)
        joining = F.relu(joining, inplace=True)
        if joining.shape[-2:] != x.shape[-2:]:
            joining = F.adaptive_avg_pool2d(joining, (x.shape[-2], x.shape[-1]))
        return x + joining
