"""Published checkpoints: their parameter names and this project's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dsctool.errors import CheckpointError

_NAMES = [
    ("neck.lateral_convs.#.conv.", "neck.lateral_convs.#."),
    ("neck.fpn_convs.#.conv.", "neck.output_convs.#."),
    ("neck.rfp_modules.#.", "rfp.backbones.#."),
    ("neck.rfp_aspp.aspp.#.", "rfp.aspp.branches.#."),
    ("neck.rfp_weight.", "rfp.fusion."),
    ("rpn_head.rpn_conv.", "rpn.conv."),
    ("rpn_head.rpn_cls.", "rpn.objectness."),
    ("rpn_head.rpn_reg.", "rpn.deltas."),
    ("roi_head.bbox_head.#.shared_fcs.0.", "cascade.box_stages.#.head.fc1."),
    ("roi_head.bbox_head.#.shared_fcs.1.", "cascade.box_stages.#.head.fc2."),
    ("roi_head.bbox_head.#.fc_cls.", "cascade.box_stages.#.head.classifier."),
    ("roi_head.bbox_head.#.fc_reg.", "cascade.box_stages.#.head.regressor."),
    ("roi_head.bbox_head.#.conv_res.conv.", "cascade.box_stages.#.head.fusion.conv."),
    ("roi_head.bbox_head.#.conv_res.bn.", "cascade.box_stages.#.head.fusion.norm."),
    ("roi_head.mpn.#.convs.#.conv.", "cascade.mask_stages.#.convs.#."),
    ("roi_head.mpn.#.conv_res.conv.", "cascade.mask_stages.#.fusion.conv."),
    ("roi_head.mpn.#.conv_res.bn.", "cascade.mask_stages.#.fusion.norm."),
    ("roi_head.mpn.#.conv_logits.", "cascade.mask_stages.#.logits."),
    ("roi_head.mpn.#.upsample.", "cascade.mask_stages.#.upsample."),
    ("roi_head.mask_head.convs.#.conv.", "cascade.mask_head.convs.#."),
    ("roi_head.mask_head.conv_res.conv.", "cascade.mask_head.fusion.conv."),
    ("roi_head.mask_head.conv_res.bn.", "cascade.mask_head.fusion.norm."),
    ("roi_head.mask_head.conv_logits.", "cascade.mask_head.logits."),
    ("roi_head.mask_head.upsample.", "cascade.mask_head.upsample."),
    ("roi_head.mask_head.#.convs.#.conv.", "cascade.mask_heads.#.convs.#."),
    ("roi_head.mask_head.#.conv_res.conv.", "cascade.mask_heads.#.fusion.conv."),
    ("roi_head.mask_head.#.conv_logits.", "cascade.mask_heads.#.logits."),
    ("roi_head.mask_head.#.upsample.", "cascade.mask_heads.#.upsample."),
    ("roi_head.semantic_head.lateral_convs.#.conv.", "cascade.semantic_head.lateral_convs.#."),
    ("roi_head.semantic_head.convs.#.conv.", "cascade.semantic_head.convs.#."),
    ("roi_head.semantic_head.conv_embedding.conv.", "cascade.semantic_head.embedding."),
    ("roi_head.semantic_head.conv_logits.", "cascade.semantic_head.logits."),
]
"""How names begin that differ: published ones (mmdet from 2.0 on), and this project's. # is a number."""


def _rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for before, after in pairs:
        numbers = iter(range(1, after.count("#") + 1))
        pattern = re.escape(before).replace(r"\#", r"(\d+)")
        rules.append((re.compile(f"^{pattern}"), re.sub("#", lambda _, n=numbers: rf"\g<{next(n)}>", after)))  # type: ignore[misc]
    return rules


_TO_OURS = _rules(_NAMES)
_TO_PUBLISHED = _rules((ours, published) for published, ours in _NAMES)


def rename(name: str) -> str:
    """This project's name of a published parameter; names that are the same in both stay."""
    return _renamed(name, _TO_OURS)


def published_name(name: str) -> str:
    """The published name of a parameter of this project: what :func:`rename` undoes."""
    return _renamed(name, _TO_PUBLISHED)


def _renamed(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
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
