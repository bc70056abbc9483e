"""Mask head with optional mask information flow (Chen et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.checkpointing import checkpointed
from dsctool.models.conv3x3 import Conv3x3
from dsctool.models.init import init_kaiming
from dsctool.models.roi.fusion import FeatureFusion
from dsctool.ops.precision import at_least_float32


class MaskHead(nn.Module):
    """Per-class mask logits at twice the RoI feature's resolution.

    With ``fusion`` the previous stage's feature joins the input.

    at_once: training computes the logits of so many RoIs at a time, and again for their gradients, since what comes
    between a feature and its logits is large (four times the cells); None: of all, once.
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
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        self.at_once = at_once
        self.fusion = fusion
        self.convs = nn.ModuleList(Conv3x3(in_channels if i == 0 else channels, channels) for i in range(convs))
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
        """A feature -> logits of every class ``(R, K, 2s, 2s)``, float32."""
        return self._in_parts(self._predict, feature)

    def predict_classes(self, feature: Tensor, labels: Tensor) -> Tensor:
        """A feature -> logits of one class per RoI ``(R, 2s, 2s)``, float32; ``labels (R,)`` says which.

        The same numbers as ``predict(feature)[range(R), labels]``, without computing the other classes.
        """
        return self._in_parts(self._predict_classes, feature, labels)

    def _in_parts(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``function`` of ``inputs``, all with a row for every RoI."""
        if self.at_once is None or not torch.is_grad_enabled():
            return function(*inputs)
        parts = zip(*(x.split(self.at_once) for x in inputs), strict=True)
        return torch.cat([checkpointed(function, *part, within=self, when=True) for part in parts])

    def _predict(self, feature: Tensor) -> Tensor:
        weight = self.logits.weight.flatten(1)  # (K, channels)
        return _unfolded(F.linear(self._upsampled(feature), weight, self.logits.bias))

    def _predict_classes(self, feature: Tensor, labels: Tensor) -> Tensor:
        upsampled = self._upsampled(feature)
        weight = self.logits.weight.flatten(1)[labels].unsqueeze(2)  # (R, channels, 1)
        bias = self.logits.get_parameter("bias")[labels].view(-1, 1, 1)
        logits = torch.baddbmm(bias, upsampled.flatten(1, 3), weight)
        return _unfolded(logits.view(*upsampled.shape[:-1], 1))[:, 0]

    def _upsampled(self, feature: Tensor) -> Tensor:
        """``ReLU(upsample(feature))``, the four cells of every cell beside each other: ``(R, s, s, 4, channels)``.

        Kernel and stride are equal, so the transposed convolution is a matrix product; what follows it treats
        every cell alike, so that cells need to be put in place only when they hold logits.
        """
        weight = self.upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * channels, channels)
        bias = self.upsample.get_parameter("bias").repeat(4)
        cells = feature.permute(0, 2, 3, 1)
        # As a plain matrix, which may be changed in place; of a view of one autograd would keep copies.
        upsampled = F.relu(F.linear(cells.flatten(0, 2), weight, bias), inplace=True)
        return upsampled.view(*cells.shape[:3], 4, self.upsample.out_channels)


def _unfolded(cells: Tensor) -> Tensor:
    """``(R, s, s, 4, K)``, four cells row by row -> ``(R, K, 2s, 2s)``, float32."""
    rois, size, _, _, channels = cells.shape
    grid = cells.view(rois, size, size, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return at_least_float32(grid.reshape(rois, channels, 2 * size, 2 * size))
