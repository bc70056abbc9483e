"""Recursive feature pyramid (Qiao et al. 2021, DetectoRS, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.models.backbones.resnet import ResNet
from dsctool.models.checkpointing import checkpointed
from dsctool.models.init import init_kaiming, init_zeros
from dsctool.models.modules import module_list
from dsctool.models.necks.fpn import FPN

FEEDBACK_LEVELS = slice(1, 4)
"""P3, P4, P5 feed the backbone's stages 2, 3, 4; stage 1 gets none."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (section 3.2): parallel branches, each with a bias and a ReLU, concatenated.

    A branch of dilation 1 is a 1x1 convolution; the last branch sees the global average.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dilations: Sequence[int],
        init: Literal["default", "kaiming"] = "default",
    ) -> None:
        super().__init__()
        if out_channels % len(dilations):
            raise ValueError(f"{out_channels} channels do not divide into {len(dilations)} branches")
        width = out_channels // len(dilations)
        self.branches = nn.ModuleList(
            nn.Conv2d(
                in_channels, width, 3 if d > 1 else 1, padding=d if d > 1 else 0, dilation=d
            )
            for d in dilations
        )  # fmt: skip
        if init == "kaiming":
            init_kaiming(*self.branches)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, h, w)`` -> ``(N, out_channels, h, w)``."""
        outputs = [F.relu(branch(x)) for branch in self.branches[:-1]]
        pooled = F.relu(self.branches[-1](F.adaptive_avg_pool2d(x, 1)))
        return torch.cat([*outputs, pooled.expand(-1, -1, *x.shape[-2:])], dim=1)


class RFP(nn.Module):
    """Further passes through backbone and FPN, each fed with the pyramid of the one before.

    The FPN, ASPP and the fusion are shared by all passes.
    """

    def __init__(
        self,
        *,
        channels: int,
        aspp_dilations: Sequence[int],
        backbones: Sequence[ResNet | None],
        aspp_init: Literal["default", "kaiming"] = "default",
        checkpoint: bool = False,
    ) -> None:
        """``backbones``: one per further pass, each with feedback inputs; None stands for the detector's own.

        checkpoint: training keeps none of the activations between feedback and fusion but the backbones', and computes
        them again for their gradients.
        """
        super().__init__()
        self.checkpoint = checkpoint
        self.further_passes = len(backbones)
        self.backbones = module_list(b for b in backbones if b is not None)
        self.aspp = ASPP(channels, channels, dilations=aspp_dilations, init=aspp_init)
        self.fusion = nn.Conv2d(channels, 1, 1)
        init_zeros(self.fusion)

    def forward(self, images: Tensor, levels: Sequence[Tensor], *, fpn: FPN, backbone: ResNet) -> list[Tensor]:
        """The first pass's P2..P6 -> the last pass's, same shapes; ``backbone`` is used where none of its own is."""
        for i in range(self.further_passes):
            levels = self.further_pass(i, images, levels, fpn=fpn, backbone=backbone)
        return list(levels)

    def further_pass(
        self, i: int, images: Tensor, levels: Sequence[Tensor], *, fpn: FPN, backbone: ResNet
    ) -> list[Tensor]:
        """P2..P6 of one pass -> those of the next, which is the ``i``-th further one."""
        feedback = [
            checkpointed(self.aspp, level, within=self.aspp, when=self.checkpoint) for level in levels[FEEDBACK_LEVELS]
        ]
        features = (self.backbones[i] if len(self.backbones) else backbone)(images, feedback)
        return checkpointed(self.fuse, fpn(features), levels, within=self, when=self.checkpoint)

    def fuse(self, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
        """``w new + (1 - w) old`` with ``w = sigmoid(fusion(new))`` per level and pixel (section 3.2)."""
        fused = []
        for x_new, x_old in zip(new, old, strict=True):
            share = self.fusion(x_new).sigmoid()
            fused.append(share * x_new + (1 - share) * x_old)
        return fused
