"""ResNet and ResNeXt with the stride on the 3x3 convolution (He et al. 2016, Xie et al. 2017).

Convolutions come from factories, so that a variant (weight standardisation, deformable or
switchable atrous convolution) is an argument and not a subclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.checkpointing import checkpointed
from dsctool.models.init import init_zeros

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Residual blocks per stage, by depth."""


class ConvFactory(Protocol):
    """Makes a convolution without bias, padded to keep the size at stride 1."""

    def __call__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> nn.Module: ...


class NormFactory(Protocol):
    """Makes a normalisation layer for a number of channels."""

    def __call__(self, channels: int) -> nn.Module: ...


def plain_conv(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """An ordinary convolution, initialised as He et al. 2015 (fan out)."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def batch_norm(channels: int) -> nn.Module:
    """Batch normalisation."""
    return nn.BatchNorm2d(channels)


def group_norm(channels: int) -> nn.Module:
    """Group normalisation with at most 32 channels a group and at most 32 groups."""
    return nn.GroupNorm(min(32, max(1, channels // 4)), channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(
        self, in_channels: int, planes: int, *, stride: int, width: int, groups: int,
        conv: ConvFactory, conv3x3: ConvFactory, norm: NormFactory, feedback_channels: int | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(in_channels, planes, kernel_size=3, stride=stride)
        self.bn1 = norm(planes)
        self.conv2 = conv3x3(planes, planes, kernel_size=3)
        self.bn2 = norm(planes)
        self.downsample = projection(in_channels, planes, stride=stride, conv=conv, norm=norm)
        self.rfp_conv = feedback_input(feedback_channels, planes)

    def forward(self, x: Tensor, feedback: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, planes, h / stride, w / stride)``; ``feedback`` has the result's size."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        identity = x if self.downsample is None else self.downsample(x)
        return join(residual, identity, self.rfp_conv, feedback)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut (ResNet-50 and deeper, ResNeXt)."""

    expansion = 4

    def __init__(
        self, in_channels: int, planes: int, *, stride: int, width: int, groups: int,
        conv: ConvFactory, conv3x3: ConvFactory, norm: NormFactory, feedback_channels: int | None,
    ) -> None:  # fmt: skip
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = conv(in_channels, width, kernel_size=1)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, kernel_size=3, stride=stride, groups=groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out_channels, kernel_size=1)
        self.bn3 = norm(out_channels)
        self.downsample = projection(in_channels, out_channels, stride=stride, conv=conv, norm=norm)
        self.rfp_conv = feedback_input(feedback_channels, out_channels)

    def forward(self, x: Tensor, feedback: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, 4 planes, h / stride, w / stride)``; ``feedback`` has the result's size."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        identity = x if self.downsample is None else self.downsample(x)
        return join(residual, identity, self.rfp_conv, feedback)


class Projection(nn.Sequential):
    """A 1x1 convolution and its normalisation on every ``stride``-th cell.

    The cells are picked before a convolution of stride 1. The result is that of a strided one, whose backward
    pass writes out of bounds on a CPU (oneDNN as in PyTorch 2.14, ``channels_last``, few channels).
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, *, stride: int) -> None:
        super().__init__(conv, norm)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, O, h / stride, w / stride)``."""
        conv, norm = self
        out: Tensor = norm(conv(every(x, self.stride)))
        return out


def every(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th cell of ``(N, C, h, w)``, from the first."""
    return x if stride == 1 else x[..., ::stride, ::stride]


def projection(
    in_channels: int, out_channels: int, *, stride: int, conv: ConvFactory, norm: NormFactory
) -> Projection | None:
    """The shortcut of a block that changes the shape, else None."""
    if stride == 1 and in_channels == out_channels:
        return None
    return Projection(conv(in_channels, out_channels, kernel_size=1), norm(out_channels), stride=stride)


def feedback_input(feedback_channels: int | None, out_channels: int) -> nn.Conv2d | None:
    """The 1x1 convolution through which a recursive feature pyramid enters a block, or None."""
    return None if feedback_channels is None else nn.Conv2d(feedback_channels, out_channels, 1)


def join(residual: Tensor, identity: Tensor, rfp_conv: nn.Module | None, feedback: Tensor | None) -> Tensor:
    """The end of a block; feedback joins before the last ReLU (Qiao et al. 2021, section 3.2)."""
    total = residual + identity
    if feedback is not None:
        if rfp_conv is None:
            raise ValueError("this block was built without a feedback input")
        total = total + rfp_conv(feedback)
    return F.relu(total, inplace=True)


class Stage(nn.Sequential):
    """The blocks of one resolution; feedback enters the first. checkpoint: as for :class:`ResNet`."""

    def __init__(self, *blocks: nn.Module, checkpoint: bool = False) -> None:
        super().__init__(*blocks)
        self.checkpoint = checkpoint

    def forward(self, x: Tensor, feedback: Tensor | None = None) -> Tensor:
        """As its blocks one after the other."""
        first, *others = self
        x = checkpointed(first, x, feedback, within=first, when=self.checkpoint)
        for block in others:
            x = checkpointed(block, x, within=block, when=self.checkpoint)
        return x


class ResNet(nn.Module):
    """The convolutional part of a ResNet or ResNeXt: C2 to C5, strides 4, 8, 16, 32.

    ``channels`` publishes the channels of the four outputs.

    Args:
        depth: 18, 34, 50 or 101.
        groups, width_per_group: (1, 64) for ResNet; (32, 4) or (64, 4) for the ResNeXts.
        in_channels: channels of the images.
        stem_channels: channels of the first convolution.
        conv: makes every convolution but the next.
        conv3x3: one factory per stage, makes the 3x3 convolution that a variant replaces.
        norm: makes the normalisation layers.
        frozen_stages: -1 none, 0 the stem, s the stem and the first s stages: no gradients.
        freeze_norm_statistics: batch norm always uses its running statistics.
        feedback_channels: of the pyramid that is fed back into stages 2 to 4; None without feedback.
        zero_feedback: what is fed back counts nothing until training moves its weights.
        checkpoint: training keeps the inputs of blocks alone, and computes a block again for its gradients.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        groups: int = 1,
        width_per_group: int = 64,
        in_channels: int = 3,
        stem_channels: int = 64,
        conv: ConvFactory = plain_conv,
        conv3x3: Sequence[ConvFactory] = (plain_conv,) * 4,
        norm: NormFactory = batch_norm,
        frozen_stages: int = 1,
        freeze_norm_statistics: bool = True,
        feedback_channels: int | None = None,
        zero_feedback: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.frozen_stages = frozen_stages
        self.freeze_norm_statistics = freeze_norm_statistics
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1 = conv(in_channels, stem_channels, kernel_size=7, stride=2)
        self.bn1 = norm(stem_channels)
        stages: list[Stage] = []
        channels = stem_channels
        for stage, count in enumerate(BLOCKS[depth]):
            planes = stem_channels * 2**stage
            width = planes * width_per_group // 64 * groups
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(
                    block(
                        channels, planes, stride=stride, width=width, groups=groups,
                        conv=conv, conv3x3=conv3x3[stage], norm=norm,
                        feedback_channels=feedback_channels if stage > 0 and index == 0 else None,
                    )
                )  # fmt: skip
                channels = planes * block.expansion
            stages.append(Stage(*blocks, checkpoint=checkpoint))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.channels = tuple(stem_channels * 2**stage * block.expansion for stage in range(4))
        if zero_feedback:
            init_zeros(*(module for name, module in self.named_modules() if name.endswith(".rfp_conv")))
        self._freeze()

    @property
    def stages(self) -> tuple[Stage, Stage, Stage, Stage]:
        """``layer1`` to ``layer4``."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, images: Tensor, feedback: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Normalised images ``(N, in_channels, H, W)`` -> C2..C5, ``(N, channels[i], H / 2^(i+2), W / 2^(i+2))``.

        feedback: features at strides 8, 16, 32 for stages 2, 3, 4, ``(N, feedback_channels, h, w)``.
        """
        x = checkpointed(self._stem, images, within=self.bn1, when=self.checkpoint)
        outputs = []
        for stage, fed_back in zip(self.stages, [None, *(feedback or (None,) * 3)], strict=True):
            x = stage(x, fed_back)
            outputs.append(x)
        return outputs

    def _stem(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``, but frozen statistics stay frozen."""
        super().train(mode)
        if self.freeze_norm_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.conv1, self.bn1, *self.stages[: self.frozen_stages]]

    def _freeze(self) -> None:
        for part in self._frozen_parts():
            part.requires_grad_(False)
