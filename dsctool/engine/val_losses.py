"""The losses of training on validation images: the same each time the weights are, and nothing learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch

from dsctool.data.loader import eval_loader
from dsctool.data.samplers import mixed_seed
from dsctool.data.transforms import Batch
from dsctool.engine.setup import Setup
from dsctool.engine.step import batch_losses
from dsctool.errors import memory_for
from dsctool.models.losses import values


class Watch(Protocol):
    """Passes batches on, and may say how far it is, or stop it by an exception."""

    def __call__(self, total: int, items: Iterator[Batch]) -> Iterable[Batch]:
        """The same batches; ``total``: how many there are."""


def validation_losses(setup: Setup, *, watch: Watch) -> dict[str, float]:
    """Means over the validation images by name, each with ``val_`` before it; ``val_loss`` is their sum.

    Images come one by one at their test size, without augmentation; what losses sample is drawn by the seed of the run
    and the place of the image, each time alike. It is the measured model that is looked at, in eval mode. Several
    processes share the images; the first one has the means.
    """
    assert setup.data.val is not None
    annotated, model, device = setup.data.val.annotated, setup.measured, setup.device
    assert annotated is not None
    one_view = setup.config.data.model_copy(update={"tta": None})
    ranks, timeout = setup.processes.ranks, setup.config.train.timeout
    loader = eval_loader(annotated, one_view, ranks=ranks, pin_memory=device.type == "cuda", timeout=timeout)
    sums: dict[str, torch.Tensor] = {}
    training = model.training
    model.eval()
    try:
        with (
            setup.processes.together(),
            torch.no_grad(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            for turn, batch in enumerate(watch(len(annotated), iter(loader))):
                torch.manual_seed(mixed_seed(setup.config.train.seed, turn * ranks.world + ranks.rank + 1))
                with memory_for("computing validation losses", remedy="Set train.val_losses=false."):
                    losses = values(batch_losses(model, batch))
                sums = {name: sums[name] + loss if sums else loss for name, loss in losses.items()}
    finally:
        model.train(training)
    told = setup.processes.gather({name: value.item() for name, value in sums.items()})
    names = told[0] if told else {}  # the first process has the first image
    means = {name: sum(each.get(name, 0.0) for each in told or []) / len(annotated) for name in names}
    return {"val_loss": sum(means.values()), **{f"val_{name}": mean for name, mean in means.items()}}
