"""How the mask feature of one stage joins the input of another head."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from dsctool.models.init import init_kaiming


class RoiBatchNorm(nn.BatchNorm2d):
    """Batch norm over RoIs; a batch without any leaves the running statistics as they are.

    group: processes over whose RoIs together statistics are taken in training; None: over those of this one, as
    published. (PyTorch's own SyncBatchNorm runs on GPUs alone, and takes no batch without RoIs.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.group: dist.ProcessGroup | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``(R, C, s, s)`` -> the same shape; R may be 0."""
        if self.training and self.group is not None:
            return self._shared(x, self.group)
        if self.training and len(x):
            return super().forward(x)
        if torch.compiler.is_exporting():
            return self._exportable(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False)

    def _exportable(self, x: Tensor) -> Tensor:
        """With the running statistics; the operator asks whether there are RoIs, which a traced program cannot know."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    def _shared(self, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """With the mean and the variance of the RoIs of all processes; gradients flow through both."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        wide, cells = x.float(), (0, 2, 3)
        own = wide.new_full((1,), x.numel() / x.shape[1])
        sums = all_reduce(torch.cat([wide.sum(cells), own]), group=group)
        count = sums[-1].detach().clamp(min=1)
        mean = sums[:-1] / count
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum(cells), group=group) / count
        with torch.no_grad():
            counted = sums[-1] > 0
            self.num_batches_tracked += counted
            momentum = torch.where(counted, self.momentum or 0.0, 0.0)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


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
