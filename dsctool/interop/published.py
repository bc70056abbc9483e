"""Published checkpoints: their parameter names and this project's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dsctool.errors import CheckpointError

_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral_convs.\1."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output_convs.\1."),
        (r"^neck\.rfp_modules\.(\d+)\.", r"rfp.backbones.\1."),
        (r"^neck\.rfp_aspp\.aspp\.(\d+)\.", r"rfp.aspp.branches.\1."),
        (r"^neck\.rfp_weight\.", "rfp.fusion."),
        (r"^rpn_head\.rpn_conv\.", "rpn.conv."),
        (r"^rpn_head\.rpn_cls\.", "rpn.objectness."),
        (r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
        (r"^roi_head\.bbox_head\.(\d+)\.shared_fcs\.0\.", r"cascade.box_stages.\1.head.fc1."),
        (r"^roi_head\.bbox_head\.(\d+)\.shared_fcs\.1\.", r"cascade.box_stages.\1.head.fc2."),
        (r"^roi_head\.bbox_head\.(\d+)\.fc_cls\.", r"cascade.box_stages.\1.head.classifier."),
        (r"^roi_head\.bbox_head\.(\d+)\.fc_reg\.", r"cascade.box_stages.\1.head.regressor."),
        (r"^roi_head\.bbox_head\.(\d+)\.conv_res\.conv\.", r"cascade.box_stages.\1.head.fusion.conv."),
        (r"^roi_head\.bbox_head\.(\d+)\.conv_res\.bn\.", r"cascade.box_stages.\1.head.fusion.norm."),
        (r"^roi_head\.mpn\.(\d+)\.convs\.(\d+)\.conv\.", r"cascade.mask_stages.\1.convs.\2."),
        (r"^roi_head\.mpn\.(\d+)\.conv_res\.conv\.", r"cascade.mask_stages.\1.fusion.conv."),
        (r"^roi_head\.mpn\.(\d+)\.conv_res\.bn\.", r"cascade.mask_stages.\1.fusion.norm."),
        (r"^roi_head\.mpn\.(\d+)\.conv_logits\.", r"cascade.mask_stages.\1.logits."),
        (r"^roi_head\.mpn\.(\d+)\.upsample\.", r"cascade.mask_stages.\1.upsample."),
        (r"^roi_head\.mask_head\.convs\.(\d+)\.conv\.", r"cascade.mask_head.convs.\1."),
        (r"^roi_head\.mask_head\.conv_res\.conv\.", "cascade.mask_head.fusion.conv."),
        (r"^roi_head\.mask_head\.conv_res\.bn\.", "cascade.mask_head.fusion.norm."),
        (r"^roi_head\.mask_head\.conv_logits\.", "cascade.mask_head.logits."),
        (r"^roi_head\.mask_head\.upsample\.", "cascade.mask_head.upsample."),
        (r"^roi_head\.mask_head\.(\d+)\.convs\.(\d+)\.conv\.", r"cascade.mask_heads.\1.convs.\2."),
        (r"^roi_head\.mask_head\.(\d+)\.conv_res\.conv\.", r"cascade.mask_heads.\1.fusion.conv."),
        (r"^roi_head\.mask_head\.(\d+)\.conv_logits\.", r"cascade.mask_heads.\1.logits."),
        (r"^roi_head\.mask_head\.(\d+)\.upsample\.", r"cascade.mask_heads.\1.upsample."),
        (r"^roi_head\.semantic_head\.lateral_convs\.(\d+)\.conv\.", r"cascade.semantic_head.lateral_convs.\1."),
        (r"^roi_head\.semantic_head\.convs\.(\d+)\.conv\.", r"cascade.semantic_head.convs.\1."),
        (r"^roi_head\.semantic_head\.conv_embedding\.conv\.", "cascade.semantic_head.embedding."),
        (r"^roi_head\.semantic_head\.conv_logits\.", "cascade.semantic_head.logits."),
    ]
]


def rename(name: str) -> str:
    """This project's name of a published parameter; names that are the same in both stay."""
    for pattern, replacement in _RULES:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def load_published(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill ``model`` from a published state dict: nothing missing, nothing left over, every shape equal.

    Raises:
        CheckpointError: lists the keys that do not fit, under their published names, and this project's names of
            parameters that no key fills; the model is unchanged.
    """
    own = model.state_dict()
    incoming = {rename(name): (name, torch.as_tensor(value)) for name, value in state_dict.items()}
    problems = [f"missing: {name}" for name in own if name not in incoming]
    if len(incoming) < len(state_dict):
        kept = {name for name, _ in incoming.values()}
        problems += [f"twice: {name} and {incoming[rename(name)][0]}" for name in state_dict if name not in kept]
    for name, (published, value) in incoming.items():
        if name not in own:
            problems.append(f"unexpected: {published}")
        elif own[name].shape != value.shape:
            problems.append(f"shape of {published}: {tuple(value.shape)}, but the model has {tuple(own[name].shape)}")
    if problems:
        raise CheckpointError("the published weights do not fit this model:\n  " + "\n  ".join(problems))
    model.load_state_dict({name: value for name, (_, value) in incoming.items()}, strict=True)
