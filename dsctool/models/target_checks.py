"""Targets that no loss could learn from are refused at the door, by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.errors import DataError
from dsctool.structures import Size, Targets

OVERHANG = 1.0
"""How far a box may stick out of the canvas, in pixels: annotation tools round."""
_RULES = ("has no finite coordinates", "has no width or no height", "leaves the canvas", "has an unknown class")


def check_targets(targets: Sequence[Targets], *, canvas: Size, num_classes: int) -> None:
    """Refuse targets from which a loss would be NaN, or an index out of range.

    Raises:
        DataError: names the image (its place in the batch), the box, and what is wrong with it.
    """
    for image, target in enumerate(targets):
        _check_shapes(target, image, canvas)
    wrong = [_wrong(target, canvas, num_classes) for target in targets]
    if not torch.cat(wrong).any():  # one read from the device
        return
    image = next(image for image, rows in enumerate(wrong) if rows.any())
    row = int(wrong[image].any(dim=1).nonzero()[0])
    rules = [rule for rule, broken in zip(_RULES, wrong[image][row].tolist(), strict=True) if broken]
    box, label = targets[image].boxes[row].tolist(), int(targets[image].labels[row])
    raise DataError(
        f"targets[{image}]: box {row}, {box} of class {label}, {' and '.join(rules)}. Boxes are (x1, y1, x2, y2) "
        f"in pixels of the {canvas[1]} x {canvas[0]} canvas (width x height), classes 0 to {num_classes - 1}"
    )


def _check_shapes(target: Targets, image: int, canvas: Size) -> None:
    boxes, labels, masks = target.boxes, target.labels, target.masks
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
        raise DataError(f"targets[{image}]: boxes must be (G, 4) and labels (G,), not {shapes}")
    wanted = (len(boxes), *canvas)
    if masks is not None and masks.shape != wanted:
        raise DataError(
            f"targets[{image}]: masks must be {wanted}, one for each box and as large as the canvas, "
            f"not {tuple(masks.shape)}"
        )


def _wrong(target: Targets, canvas: Size, num_classes: int) -> Tensor:
    """``(G, 4)`` bool: which of the rules each box breaks."""
    boxes, labels = target.boxes, target.labels
    limits = boxes.new_tensor([canvas[1], canvas[0]]) + OVERHANG
    broken = (
        ~boxes.isfinite().all(dim=1),
        (boxes[:, 2:] <= boxes[:, :2]).any(dim=1),
        (boxes[:, :2] < -OVERHANG).any(dim=1) | (boxes[:, 2:] > limits).any(dim=1),
        (labels < 0) | (labels >= num_classes),
    )
    return torch.stack(broken, dim=1)
