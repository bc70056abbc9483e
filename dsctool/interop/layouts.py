"""The ways in which published files name their weights, brought to one: that of mmdet from 2.0 on.

Between mmdet 2.0 and 3.3 no name of these models changed. Files of mmdet 1.x (the DetectoRS authors' own, and HTC's of
2019) keep the heads beside the detector and not inside ``roi_head``, the recursive pyramid's parts outside the neck,
and have the background as their first class, as a row of the classifier and as a channel of the masks that was never
trained. The region proposal network's three scores per place are of anchors, not of classes, and stay; so do the 183
channels of the semantic branch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
FIRST_VERSION, LATER_VERSIONS = "mmdet 1.x", "mmdet 2.x or 3.x"

_OLD_OFFSET = re.compile(r"\.(conv\d+)_offset\.(weight|bias)$")
_OLD_HEAD = re.compile(r"^(bbox_head|mask_head)\.\d+\.")
_CLASSIFIER = re.compile(r"^bbox_head\.\d+\.fc_cls\.(weight|bias)$")
_MASK_LOGITS = re.compile(r"^mask_head\.\d+\.conv_logits\.(weight|bias)$")


@dataclass(frozen=True)
class Unified:
    """Weights by the names of mmdet from 2.0 on. layout: what they came in. changes: what was done, for people."""

    state: State
    layout: str
    changes: tuple[str, ...]


def unify(state: Mapping[str, Tensor]) -> Unified:
    """The same weights in one layout, whatever program of the family wrote them; names of other programs stay."""
    old = any(_OLD_HEAD.match(name.removeprefix("module.")) for name in state)
    steps = [_without_wrapper, _without_averages, _with_named_offsets, *([_from_first_version] if old else [])]
    changes: list[str] = []
    unified = dict(state)
    for step in steps:
        unified, change = step(unified)
        changes += [change] if change else []
    return Unified(unified, FIRST_VERSION if old else LATER_VERSIONS, tuple(changes))


def _without_wrapper(state: State) -> tuple[State, str]:
    count = sum(name.startswith("module.") for name in state)
    return {name.removeprefix("module."): value for name, value in state.items()}, _said(
        count, "names without the `module.` of distributed training"
    )


def _without_averages(state: State) -> tuple[State, str]:
    """mmcv's EMAHook keeps one average beside each weight."""
    averages = {f"ema_{name.replace('.', '_')}" for name in state}
    kept = {name: value for name, value in state.items() if name not in averages}
    return kept, _said(len(state) - len(kept), "moving averages left out, the weights themselves are used")


def _with_named_offsets(state: State) -> tuple[State, str]:
    """Deformable convolutions of mmcv before version 2 of theirs."""

    def name_of(old: str) -> str:
        new = _OLD_OFFSET.sub(r".\1.conv_offset.\2", old)
        return old if new in state else new

    named = {name_of(name): value for name, value in state.items()}
    return named, _said(len(named.keys() - state.keys()), "offsets of deformable convolutions by their later names")


def _from_first_version(state: State) -> tuple[State, str]:
    rules: list[tuple[Callable[[str], object], Callable[[Tensor], Tensor]]] = [
        (_CLASSIFIER.match, lambda rows: torch.cat([rows[1:], rows[:1]])),
        (_MASK_LOGITS.match, lambda channels: channels[1:] if len(channels) > 1 else channels),
    ]
    renewed = {}
    for name, value in state.items():
        for fits, change in rules:
            if fits(name):
                value = change(value)
        place = "neck." if name.startswith("rfp_") else "roi_head." if name.startswith(_HEADS) else ""
        renewed[place + name] = value
    return renewed, "background moved behind the classes, its mask channels dropped, heads and pyramid moved"


_HEADS = ("bbox_head.", "mask_head.", "semantic_head.")


def _said(count: int, what: str) -> str:
    return f"{count} {what}" if count else ""
