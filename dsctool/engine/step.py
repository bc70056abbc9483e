"""One optimiser step: losses, gradients, and the check that both are finite before anything changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.inference import device_of
from dsctool.engine.optim import clip_gradients, gradient_norm, set_learning_rate
from dsctool.engine.precision import LossScale, computing_in
from dsctool.errors import DataError, LossError, TrainingError, memory_for
from dsctool.models.losses import Mean, values
from dsctool.terms import Precision

_REMEDY = (
    "Nothing of this step was kept. Lower optim.lr, lengthen optim.warmup_steps or set optim.clip_norm, "
    "and start a new run (train.weights=RUN/last.pt starts it from the weights saved last)."
)
_RANGE = (
    "float16 has no room for numbers above 65504. Nothing of these steps was kept: --resume with "
    "train.precision=bfloat16 or train.precision=float32 goes on from RUN/last.pt."
)
_LESS = (
    "Set train.checkpoint_activations=true, lower train.batch_size (train.accumulate keeps the effective batch) or "
    "data.train_resize (data.jitter.size); dsctool train --dry-run --save-memory says what that saves."
)


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step did; the tensors stay on the device.

    losses: scalars by name, the mean over the step's batches. Their sum is the loss that was minimised.
    grad_norm: scalar, the L2 norm of all gradients before clipping.
    images: images in the step.
    skipped: the step was not finite and changed nothing, which happens only where losses are scaled.
    """

    losses: dict[str, Tensor]
    grad_norm: Tensor
    images: int
    skipped: bool = False


Division = Callable[[Mapping[str, Mean]], dict[str, Tensor]]
"""How losses are divided by their counts."""


def optimizer_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    *,
    rate: float,
    max_norm: float | None,
    divide: Division = values,
    precision: Precision = "float32",
    scale: LossScale | None = None,
    everywhere: Callable[[bool], bool] = bool,
) -> StepResult:
    """Average the gradients of ``batches``, clip them to ``max_norm``, and step with the learning rate ``rate``.

    model: a :class:`~dsctool.models.detector.Detector`, or what wraps one; several processes exchange their gradients
    with those of the last batch. divide: how losses are divided by their counts. precision: of the forward passes.
    scale: of the losses; with it, steps that are not finite are skipped, as many in a row as it allows.
    everywhere: whether something is so in all processes.

    Raises, before any weight changes, TrainingError when a loss or a gradient is not finite, and the DataError of a
    model that cannot learn from its targets; both name the images.
    """
    optimizer.zero_grad(set_to_none=True)
    # What a forward pass that overflows leaves in the statistics of batch norms must not stay there.
    buffers = [] if scale is None else [(buffer, buffer.clone()) for buffer in model.buffers()]
    parts = []
    for number, batch in enumerate(batches, start=1):
        with exchange_of(model, wanted=number == len(batches)):
            losses = _backward(model, batch, share=1 / len(batches), divide=divide, precision=precision, scale=scale)
            parts.append(losses)
    if scale is not None:
        scale.unscale(optimizer)
    norm = gradient_norm(optimizer)
    finite = everywhere(all_finite([norm, *(loss for part in parts for loss in part.values())]))
    goes_on = finite if scale is None else scale.took(finite=finite)
    if not goes_on:
        raise _not_finite(model, parts, batches, scale)
    if finite:
        clip_gradients(optimizer, norm=norm, max_norm=max_norm)
        set_learning_rate(optimizer, rate)
        optimizer.step()
    else:
        for buffer, before in buffers:
            buffer.copy_(before)
    optimizer.zero_grad(set_to_none=True)  # an evaluation that follows has their memory, and may keep what it derives
    losses = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
    return StepResult(losses, norm, sum(len(infos) for _, _, infos in batches), skipped=not finite)


def exchange_of(model: nn.Module, *, wanted: bool) -> AbstractContextManager[None]:
    """Whether gradients are exchanged with other processes in the block, where ``model`` does that at all."""
    return nullcontext() if wanted or not isinstance(model, DistributedDataParallel) else model.no_sync()


def all_finite(scalars: Sequence[Tensor]) -> bool:
    """Whether a step may change the weights: the one question about it that a step asks the device."""
    return bool(torch.stack(list(scalars)).isfinite().all())


def part_of(loss: str) -> str:
    """Which part of the detector a loss such as ``s0.loss_mask`` belongs to, in words."""
    stage, dot, _ = loss.partition(".")
    if dot and stage[:1] == "s" and stage[1:].isdigit():
        return f"cascade stage {int(stage[1:]) + 1}"
    if "rpn" in loss:
        return "region proposals"
    return "semantic branch" if "semantic" in loss else "detector"


def _backward(
    model: nn.Module, batch: Batch, *, share: float, divide: Division, precision: Precision, scale: LossScale | None
) -> dict[str, Tensor]:
    images, targets, infos = batch
    height, width = images.tensor.shape[-2:]
    instances = sum(len(target.boxes) for target in targets)
    task = f"training on {instances} instances in {len(infos)} images on {width} x {height} pixels; {_ids(infos)}"
    with memory_for(task, remedy=_LESS):
        with computing_in(precision, device_of(model)):
            counted = batch_losses(model, batch)
        losses = divide(counted)
        total = torch.stack(list(losses.values())).sum() * share
        (total if scale is None else scale.scaled(total)).backward()
    return {name: loss.detach() for name, loss in losses.items()}


def batch_losses(model: nn.Module, batch: Batch) -> dict[str, Mean]:
    """By name, on the device of ``model``; a DataError of the model names the images."""
    images, targets, infos = batch
    device = device_of(model)
    images = images.to(device, non_blocking=True)  # from the pinned memory of the loader
    targets = [target.to(device, non_blocking=True) for target in targets]
    try:
        losses: dict[str, Mean] = model(images.tensor, targets, images.sizes)
    except DataError as error:
        raise DataError(f"{error}; {_ids(infos)}") from None
    return losses


def _not_finite(
    model: nn.Module, parts: Sequence[dict[str, Tensor]], batches: Sequence[Batch], scale: LossScale | None
) -> TrainingError:
    """What is not finite, where it is from, and the images that it was computed from."""
    before, remedy = "", _REMEDY
    if scale is not None:
        before, remedy = f"{scale.in_a_row} steps in a row overflowed; in the last one the ", _RANGE
    for part, (_, _, infos) in zip(parts, batches, strict=True):
        values = {name: loss.item() for name, loss in part.items()}
        broken = [f"{name} = {value} ({part_of(name)})" for name, value in values.items() if not math.isfinite(value)]
        if broken:
            return LossError(f"{before}loss is not finite: {', '.join(broken)}; {_ids(infos)}. {remedy}")
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    gradients = [(name, p.grad) for name, p in plain.named_parameters() if p.grad is not None]
    broken = [name for name, gradient in gradients if not gradient.isfinite().all()]
    names = ", ".join(broken[:3]) or "the norm of all together"
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    ids = _ids([info for _, _, infos in batches for info in infos])
    return TrainingError(f"{before}gradient is not finite: {names}{more}; {ids}. {remedy}")


def _ids(infos: Sequence[SampleInfo]) -> str:
    return "image ids " + ", ".join(str(info.image_id) for info in infos)
