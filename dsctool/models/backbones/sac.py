"""Weight-standardised and switchable atrous convolution (Qiao et al. 2021, DetectoRS, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.backbones.resnet import every
from dsctool.models.derived import Derived
from dsctool.models.init import init_zeros
from dsctool.ops.deform_conv import DeformableConvFunction, deformable_conv
from dsctool.ops.precision import at_least_float32, full_precision

EPSILON = 1e-5
"""Added to the variance of a filter."""
LARGE_DILATION = 3
"""Dilation and padding of SAC's second branch."""


def _moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(O, 1, 1, 1)`` of every filter; unbiased variance, epsilon inside the root."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def standardised(weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """``W' = gamma (W - mean) / std + beta``, filter by filter: ``weight (O, I, k, k)``, the others ``(O, 1, 1, 1)``.

    Computed as a batch norm of one batch with a channel per filter, several times as fast as the formula in tensors.
    Batch norm's variance is the biased one, ``share`` times the unbiased.
    """
    filters, size = len(weight), weight[0].numel()
    share = (size - 1) / size
    rows = weight.permute(0, 2, 3, 1).reshape(1, filters, size)  # a view where the memory is channels last
    rows = F.batch_norm(
        rows, None, None, gamma.flatten() * share**0.5, beta.flatten(), training=True, eps=EPSILON * share
    )
    return rows.view(weight.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


def _add_filters(module: nn.Module, in_channels: int, out_channels: int, *, kernel_size: int, groups: int) -> None:
    """Give ``module`` a ``weight`` and its affine buffers ``weight_gamma`` and ``weight_beta``.

    The buffers are not trained: they carry the moments of the filters as they were before training,
    so that W' starts as the weight itself (also in a fresh layer, where the published one starts from 1 and 0:
    with an unscaled filter of unit variance activations would grow by the root of its fan-in).
    """
    weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    module.register_parameter("weight", weight)
    module.register_buffer("weight_gamma", torch.empty(out_channels, 1, 1, 1))
    module.register_buffer("weight_beta", torch.empty(out_channels, 1, 1, 1))
    calibrate(module)


@torch.no_grad()
def calibrate(module: nn.Module) -> None:
    """Set the affine buffers of a standardised convolution so that W' equals its weight as it is now."""
    mean, std = _moments(module.get_parameter("weight"))
    module.get_buffer("weight_gamma").copy_(std)
    module.get_buffer("weight_beta").copy_(mean)
    module.train(module.training)  # what was derived from the buffers is void


class StandardisedConv(nn.Module):
    """A convolution without bias whose weight is standardised (ConvAWS)."""

    weight: nn.Parameter
    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = stride, kernel_size // 2, groups
        self.standardise = Derived(standardised)
        _add_filters(self, in_channels, out_channels, kernel_size=kernel_size, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, O, h / stride, w / stride)``."""
        weight = self.standardise(self.weight, self.weight_gamma, self.weight_beta)
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=self.groups)


class SwitchableAtrousConv(nn.Module):
    """A 3x3 convolution at two atrous rates, mixed per pixel by a switch (equation 4), between two global contexts.

    Freshly made, the switch is 1 everywhere and all else that is new is 0: the layer equals the
    plain standardised convolution.
    """

    weight: nn.Parameter
    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        deformable: bool = True,
        sample: DeformableConvFunction = deformable_conv,
    ) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.sample = sample
        self.standardise = Derived(standardised)
        _add_filters(self, in_channels, out_channels, kernel_size=kernel_size, groups=groups)
        taps = kernel_size**2
        self.weight_diff = nn.Parameter(torch.zeros_like(self.weight))
        self.switch = nn.Conv2d(in_channels, 1, 1)
        self.pre_context = nn.Conv2d(in_channels, in_channels, 1)
        self.post_context = nn.Conv2d(out_channels, out_channels, 1)
        self.offset_s = nn.Conv2d(in_channels, 2 * taps, 3, stride=stride, padding=1) if deformable else None
        self.offset_l = nn.Conv2d(in_channels, 2 * taps, 3, stride=stride, padding=1) if deformable else None
        added = (self.switch, self.pre_context, self.post_context, self.offset_s, self.offset_l)
        init_zeros(*(conv for conv in added if conv is not None))
        nn.init.ones_(self.switch.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, O, h / stride, w / stride)`` float32; any size."""
        with full_precision(x.device):  # S(x) has no bounds and weighs two maps, the contexts are sums over the image
            x = at_least_float32(x)
            x = x + self.pre_context(F.adaptive_avg_pool2d(x, 1))
            # Reflection needs three cells; smaller maps, which the published layer refuses, repeat their border.
            border = "reflect" if min(x.shape[-2:]) >= 3 else "replicate"
            average = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode=border), kernel_size=5, stride=1)
            switch = self.switch(every(average, self.stride))  # S(x), linear: neither squashed nor cut
            weight = self.standardise(self.weight, self.weight_gamma, self.weight_beta)
            small = self._conv(x, average, self.offset_s, weight, dilation=1)
            large = self._conv(x, average, self.offset_l, weight + self.weight_diff, dilation=LARGE_DILATION)
            out = switch * small + (1 - switch) * large
            return out + self.post_context(F.adaptive_avg_pool2d(out, 1))

    def _conv(self, x: Tensor, average: Tensor, offset: nn.Conv2d | None, weight: Tensor, *, dilation: int) -> Tensor:
        if offset is None:
            return F.conv2d(x, weight, stride=self.stride, padding=dilation, dilation=dilation, groups=self.groups)
        return self.sample(
            x, offset(average), weight, stride=self.stride, padding=dilation, dilation=dilation, groups=self.groups
        )


class DeformableConv(nn.Module):
    """A deformable convolution (v1) whose offsets come from an ordinary convolution of the same input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        sample: DeformableConvFunction = deformable_conv,
    ) -> None:
        super().__init__()
        self.sample = sample
        self.stride, self.padding, self.groups = stride, kernel_size // 2, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.conv_offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, stride=stride, padding=self.padding)
        init_zeros(self.conv_offset)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, O, h / stride, w / stride)`` float32."""
        with full_precision(x.device):
            x = at_least_float32(x)
            return self.sample(
                x,
                self.conv_offset(x),
                self.weight,
                stride=self.stride,
                padding=self.padding,
                dilation=1,
                groups=self.groups,
            )
