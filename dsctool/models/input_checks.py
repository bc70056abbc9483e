"""What a detector refuses at its door, by name, before it gives wrong numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsctool.errors import DataError
from dsctool.models.roi.semantic_head import IGNORED
from dsctool.ops.exchange import vector_like
from dsctool.structures import Targets
from dsctool.terms import Size

OVERHANG = 1.0
"""How far a box may stick out of the canvas, in pixels: annotation tools round."""
_RULES = ("has no finite coordinates", "has no width or no height", "leaves the canvas", "has an unknown class")


def check_normalised(images: object, *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse what is no ``(N, C, H, W)`` batch of images normalised by ``mean`` and ``std`` (of values 0 to 255).

    Raises:
        DataError: says what it is instead, and what to call.
    """
    brightest = max((255 - m) / s for m, s in zip(mean, std, strict=True))
    if not isinstance(images, Tensor):
        problem = f"it is a {type(images).__name__}"
    elif images.ndim != 4 or images.shape[1] != len(mean):
        problem = f"its shape is {tuple(images.shape)}"
    elif not images.is_floating_point():
        problem = f"its values are {str(images.dtype).removeprefix('torch.')}"
    elif not images.numel():
        return
    else:
        lowest, highest = torch.stack(images.aminmax()).tolist()  # one read of the device
        if lowest >= 0 and 0 < highest <= 1:
            problem = "all its values are from 0 to 1, so the mean colour has not been subtracted"
        elif lowest >= 0 and highest > 1.01 * brightest:
            problem = f"no value is below 0 and the largest is {highest:g}, which is more than white"
        else:
            return
    raise DataError(
        f"predict() takes a (N, {len(mean)}, H, W) float tensor of normalised images, and this is none: {problem}. "
        "Paths, Pillow images and (h, w, 3) uint8 arrays go to predict_images(), which resizes and normalises as the "
        "model needs it."
    )


def check_targets(
    targets: Sequence[Targets], *, images: int, canvas: Size, num_classes: int, semantic_classes: int | None
) -> None:
    """Refuse targets from which a loss would be NaN, or an index out of range.

    images: how many there are in the batch, padded to ``canvas`` (h, w). semantic_classes: of semantic maps, which are
    not looked at where it is None.

    Raises:
        DataError: names the image (its place in the batch), the box or the map, and what is wrong with it.
    """
    if len(targets) != images or not images:
        raise DataError(f"there are {images} images and {len(targets)} targets: give one for each, and at least one")
    for image, target in enumerate(targets):
        _check_shapes(target, image, canvas)
    wrong = [_wrong(target, canvas, num_classes) for target in targets]
    unknown = [_unknown(target, semantic_classes) for target in targets]
    if not torch.cat([torch.cat(wrong).flatten(), torch.stack(unknown)]).any():  # one read from the device
        return
    if semantic_classes is not None and (maps := [image for image, found in enumerate(unknown) if found]):
        raise DataError(
            f"targets[{maps[0]}]: the semantic map holds classes above {semantic_classes - 1}, the branch's last, and "
            f"not {IGNORED}"
        )
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
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        found = f"{tuple(boxes.shape)} and {tuple(labels.shape)} {str(labels.dtype).removeprefix('torch.')}"
        raise DataError(f"targets[{image}]: boxes must be (G, 4) and labels (G,) int64, not {found}")
    wanted = (len(boxes), *canvas)
    if masks is not None and masks.shape != wanted:
        raise DataError(
            f"targets[{image}]: masks must be {wanted}, one for each box and as large as the canvas, "
            f"not {tuple(masks.shape)}"
        )


def _wrong(target: Targets, canvas: Size, num_classes: int) -> Tensor:
    """``(G, 4)`` bool: which of the rules each box breaks."""
    boxes, labels = target.boxes, target.labels
    limits = vector_like(boxes, canvas[1], canvas[0]) + OVERHANG
    broken = (
        ~boxes.isfinite().all(dim=1),
        (boxes[:, 2:] <= boxes[:, :2]).any(dim=1),
        (boxes[:, :2] < -OVERHANG).any(dim=1) | (boxes[:, 2:] > limits).any(dim=1),
        (labels < 0) | (labels >= num_classes),
    )
    return torch.stack(broken, dim=1)


def _unknown(target: Targets, classes: int | None) -> Tensor:
    """``()`` bool: whether the semantic map holds a class that is none."""
    if target.semantic is None or classes is None:
        return torch.zeros((), dtype=torch.bool, device=target.boxes.device)
    return ((target.semantic >= classes) & (target.semantic != IGNORED)).any()
