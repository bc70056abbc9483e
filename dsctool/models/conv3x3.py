"""The 3x3 convolution of necks and heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsctool.models.derived import Derived
from dsctool.ops.winograd import pays, transform_filters, winograd_conv


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with a bias that keeps the size: on a CPU by fewer multiplications where no gradients are due.

    Its transformed filters take four times the memory of its weight, from the first inference on.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.filters = Derived(transform_filters)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, O, h, w)``."""
        assert self.bias is not None
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not pays(x, self.weight):
            return super().forward(x)
        return winograd_conv(x, self.filters(self.weight), self.bias)
