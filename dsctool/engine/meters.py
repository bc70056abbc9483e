"""Means over a log interval, read from the device once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from dsctool.data.transforms import Batch
from dsctool.engine.step import StepResult


class Feed:
    """Groups batches for optimiser steps and measures the time that they are waited for."""

    def __init__(self, batches: Iterator[Batch], *, group: int) -> None:
        self._batches = batches
        self._group = group
        self.waited = 0.0
        """Seconds that the last group took to arrive."""

    def __iter__(self) -> Iterator[list[Batch]]:
        while group := self._take():
            yield group

    def _take(self) -> list[Batch]:
        start = time.perf_counter()
        group = [batch for _, batch in zip(range(self._group), self._batches, strict=False)]
        self.waited = time.perf_counter() - start
        return group


class Window:
    """Sums what the steps of a log interval give, on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._skipped = 0
        self._images = 0
        self._waited = 0.0
        self._seconds = 0.0

    def add(self, result: StepResult, *, waited: float, seconds: float) -> None:
        """Count a step that took ``seconds``, of which its batches took ``waited`` to arrive."""
        if not result.skipped:
            values = {**result.losses, "grad_norm": result.grad_norm}
            self._sums = {name: self._sums[name] + value if self._sums else value for name, value in values.items()}
        self._steps += 1
        self._skipped += result.skipped
        self._images += result.images
        self._waited += waited
        self._seconds += seconds

    def means(self) -> tuple[dict[str, float], dict[str, float]]:
        """Means over the steps so far, read from the device once: losses by name, and everything else.

        Everything else is ``grad_norm``, ``data_time`` and ``step_time`` in seconds per step, ``images_per_s``, and
        ``skipped``, the number of steps that were. These have no part in the losses and in ``grad_norm``, which are
        missing where all were skipped.
        """
        counted = self._steps - self._skipped
        means = (torch.stack(list(self._sums.values())) / counted).tolist() if counted else []
        losses = dict(zip(self._sums, means, strict=True))
        others = {
            **({"grad_norm": losses.pop("grad_norm")} if counted else {}),
            "data_time": self._waited / self._steps,
            "step_time": self._seconds / self._steps,
            "images_per_s": self._images / self._seconds,
            "skipped": float(self._skipped),
        }
        return losses, others
