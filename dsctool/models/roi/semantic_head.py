"""Fused semantic head (Chen et al. 2019, section 3.3) and the pooling of its feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.errors import DataError
from dsctool.models.checkpointing import checkpointed
from dsctool.models.conv3x3 import Conv3x3
from dsctool.models.init import init_kaiming
from dsctool.models.losses import Mean, semantic_loss
from dsctool.ops.geometry import CURRENT, Geometry
from dsctool.ops.roi_align import roi_align
from dsctool.structures import Targets

LEVEL = 1
"""The pyramid level whose size the fused map has: P3, stride 8."""
STRIDE = 8
IGNORED = 255
"""The value of cells that no loss looks at."""
POOL_SIZE = 14
"""RoIs are pooled to this many bins a side whatever their size, then averaged to the size asked for."""


class SemanticHead(nn.Module):
    """Stuff-and-thing logits and an embedded feature, both at stride 8, from all pyramid levels."""

    def __init__(
        self, *, channels: int, num_levels: int, convs: int, num_classes: int, loss_weight: float, average_valid: bool
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.average_valid = average_valid
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(num_levels))
        self.convs = nn.ModuleList(Conv3x3(channels, channels) for _ in range(convs))
        self.embedding = nn.Conv2d(channels, channels, 1)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        init_kaiming(*self.lateral_convs, *self.convs, self.embedding, self.logits)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """P2..P6 -> the shared map and the embedded feature S, each ``(N, channels, H/8, W/8)``."""
        size = features[LEVEL].shape[-2:]
        shared = F.relu(self.lateral_convs[LEVEL](features[LEVEL]))
        for level, (conv, x) in enumerate(zip(self.lateral_convs, features, strict=True)):
            if level != LEVEL:
                shared = shared + F.relu(conv(F.interpolate(x, size=size, mode="bilinear", align_corners=True)))
        for conv in self.convs:
            shared = F.relu(conv(shared))
        return shared, F.relu(self.embedding(shared))

    @property
    def num_classes(self) -> int:
        """Classes of the map, from 0."""
        return self.logits.out_channels

    def predict(self, shared: Tensor) -> Tensor:
        """The shared map -> class logits ``(N, classes, H/8, W/8)``."""
        return self.logits(shared)

    def loss(self, shared: Tensor, labels: Tensor) -> Mean:
        """Weighted cross entropy with ``labels (N, H/8, W/8)``, 255 ignored."""
        return self.loss_weight * semantic_loss(self.predict(shared), labels, average_valid=self.average_valid)


def semantic_branch(
    head: SemanticHead | None, features: Sequence[Tensor], targets: Sequence[Targets], *, checkpoint: bool = False
) -> tuple[dict[str, Mean], Tensor | None]:
    """The branch in training: its loss, ``loss_semantic_seg``, and S; nothing and None where there is no branch.

    checkpoint: its activations are computed again for their gradients.

    Raises:
        DataError: an image has no semantic map, or one of another size.
    """
    if head is None:
        return {}, None
    labels = [t.semantic for t in targets if t.semantic is not None]
    if len(labels) != len(targets):
        raise DataError(
            "the semantic branch needs a semantic map for every image; set data.semantic=none to go without"
        )
    shared, semantic = checkpointed(head, features, within=head, when=checkpoint)
    for image, map_ in enumerate(labels):
        if map_.shape != shared.shape[-2:]:
            found, wanted = tuple(map_.shape), tuple(shared.shape[-2:])
            raise DataError(f"targets[{image}]: the semantic map is {found}, but the stride-{STRIDE} grid is {wanted}")
    return {"loss_semantic_seg": head.loss(shared, torch.stack(labels))}, semantic


def embedded(maps: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """S of what a :class:`SemanticHead` gives, where there is one."""
    return None if maps is None else maps[1]


def semantic_roi_feature(embedded: Tensor, rois: Tensor, *, output_size: int, geometry: Geometry = CURRENT) -> Tensor:
    """S under each RoI ``(R, 5)``: ``(R, channels, output_size, output_size)``."""
    if POOL_SIZE % output_size == 0:
        pool = POOL_SIZE // output_size
        return roi_align(embedded, rois, output_size=output_size, stride=STRIDE, pool=pool, geometry=geometry)
    pooled = roi_align(embedded, rois, output_size=POOL_SIZE, stride=STRIDE, geometry=geometry)
    return F.adaptive_avg_pool2d(pooled, output_size)
