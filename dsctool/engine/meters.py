"""Means over a log interval, read from the device once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Self

import torch
from torch import Tensor

from dsctool.data.transforms import Batch
from dsctool.engine.environment import peak_bytes
from dsctool.engine.step import StepResult


class Feed:
    """Passes on the batches of each step, and measures the time that they are waited for."""

    def __init__(self, steps: Iterator[list[Batch]]) -> None:
        self._steps = steps
        self.waited = 0.0
        """Seconds that the last step's batches took to arrive."""

    def __iter__(self) -> Iterator[list[Batch]]:
        start = time.perf_counter()
        for batches in self._steps:
            self.waited = time.perf_counter() - start
            yield batches
            start = time.perf_counter()


def over_processes(
    told: Sequence[tuple[dict[str, float], dict[str, float]]],
) -> tuple[dict[str, float], dict[str, float]]:
    """The means of :class:`Window` of every process as one: means, all images a second, and how far they are apart."""
    losses = {name: fmean(each[name] for each, _ in told) for name in told[0][0]}
    others = {name: fmean(each[name] for _, each in told) for name in told[0][1]}
    if len(told) > 1:
        totals = [sum(each.values()) for each, _ in told]
        others |= {"total_min": min(totals), "total_max": max(totals)}
        if "images_per_s" in others:
            others |= {"images_per_s": sum(each["images_per_s"] for _, each in told)}
            others |= {f"{name}_max": max(each[name] for _, each in told) for name in ("data_time", "step_time")}
    return losses, others


class Window:
    """Sums what the steps of a log interval give, on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._device = torch.device("cpu")
        self._steps = 0
        self._timed = 0  # of them, in this process
        self._skipped = 0
        self._images = 0
        self._waited = 0.0
        self._seconds = 0.0

    def add(self, result: StepResult, *, waited: float, seconds: float) -> None:
        """Count a step that took ``seconds``, of which its batches took ``waited`` to arrive."""
        if not result.skipped:
            values = {**result.losses, "grad_norm": result.grad_norm}
            self._sums = {name: self._sums[name] + value if self._sums else value for name, value in values.items()}
        self._device = result.grad_norm.device
        self._steps += 1
        self._timed += 1
        self._skipped += result.skipped
        self._images += result.images
        self._waited += waited
        self._seconds += seconds

    def __len__(self) -> int:
        """Steps so far."""
        return self._steps

    @property
    def state(self) -> dict[str, Any]:
        """What was counted so far, for a run that goes on later; times are not in it."""
        sums = {name: value.cpu() for name, value in self._sums.items()}
        return {"sums": sums, "steps": self._steps, "skipped": self._skipped}

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """One that goes on counting where ``state`` was."""
        window = cls()
        window._sums = {name: value.to(device) for name, value in state["sums"].items()}
        window._steps, window._skipped = state["steps"], state["skipped"]
        return window

    def means(self) -> tuple[dict[str, float], dict[str, float]]:
        """Means over the steps so far, read from the device once: losses by name, and everything else.

        Everything else is ``grad_norm``, ``data_time`` and ``step_time`` in seconds per step, ``data_share`` (of the
        time, spent waiting for data), ``images_per_s``, ``memory`` (the most so far, in GiB: of the GPU, else of this
        process) and ``skipped``, the number of steps that were. These have no part in the losses and in ``grad_norm``,
        which are missing where all were skipped.
        """
        counted = self._steps - self._skipped
        means = (torch.stack(list(self._sums.values())) / counted).tolist() if counted else []
        losses = dict(zip(self._sums, means, strict=True))
        others = {
            **({"grad_norm": losses.pop("grad_norm")} if counted else {}),
            **(self._times() if self._timed else {}),  # else all was in an earlier sitting
            "memory": peak_bytes(self._device) / 2**30,
            "skipped": float(self._skipped),
        }
        return losses, others

    def _times(self) -> dict[str, float]:
        return {
            "data_time": self._waited / self._timed,
            "step_time": self._seconds / self._timed,
            "data_share": self._waited / self._seconds,
            "images_per_s": self._images / self._seconds,
        }
