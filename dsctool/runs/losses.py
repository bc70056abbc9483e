"""What the names of losses mean, for people."""

from __future__ import annotations

from collections.abc import Iterable

_MEANINGS = {
    "loss_rpn_cls": "region proposals: object or not, at every anchor",
    "loss_rpn_bbox": "region proposals: how far their boxes are off",
    "loss_semantic_seg": "semantic branch: the class of every pixel",
    "loss_cls": "class of every region (RoI), background too",
    "loss_bbox": "how far the boxes of regions are off",
    "loss_mask": "mask inside every region",
    "loss_mpn": "rough masks that guide the next boxes (DSC)",
}


def stage_of(name: str) -> int | None:
    """The cascade stage, from 0, of a loss such as ``s0.loss_mask``; None for losses of no stage."""
    stage, dot, _ = name.partition(".")
    return int(stage[1:]) if dot and stage[:1] == "s" and stage[1:].isdigit() else None


def explain_losses(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each kind of loss once, with what it is, and what the ``s0.`` before a name means; first their sum."""
    names = list(names)
    stages = sorted({stage for name in names if (stage := stage_of(name)) is not None})
    kinds = dict.fromkeys(name.partition(".")[2] if stage_of(name) is not None else name for name in names)
    rows = [("loss", "the sum of all, which training makes small")]
    if stages:
        prefixes = f"s{stages[0]}. to s{stages[-1]}." if len(stages) > 1 else f"s{stages[0]}."
        rows.append((prefixes, "stages of the cascade, each from the boxes of the one before"))
    return [*rows, *((kind, _MEANINGS.get(kind, "a loss of this model")) for kind in kinds)]
