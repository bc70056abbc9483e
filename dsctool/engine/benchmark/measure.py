"""Several models measured in turns, beside what the machine can do at that moment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from dsctool.engine.benchmark.stages import CudaClock, FlopClock, Stages, WallClock
from dsctool.engine.benchmark.subjects import Subject

PEAK_SIDE = {"cpu": 2048}
"""Sides of the matrices whose product is the measure of a device; 8,192 elsewhere."""


@dataclass(frozen=True)
class Spread:
    """Numbers of several rounds."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one."""
        return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measured:
    """What a model took, per picture.

    seconds: of everything. ratio: of its seconds to the first model's of the same round. stages: seconds of each.
    flops: by stage, without those that have none. instances: found, or learnt from, per picture. windows: of a picture
    that it looked at by tiles; None: it never does.
    """

    seconds: Spread
    ratio: Spread
    stages: dict[str, Spread]
    flops: dict[str, float]
    instances: float
    windows: float | None


@dataclass(frozen=True)
class Bench:
    """Models in the order given, and the matrix products of the same rounds, in floating-point operations a second."""

    peak: Spread
    models: dict[str, Measured]

    def share(self, name: str, stage: str | None = None) -> float | None:
        """Of the peak that a model, or one of its stages, reaches; None where there are no operations."""
        model = self.models[name]
        flops = sum(model.flops.values()) if stage is None else model.flops.get(stage, 0.0)
        seconds = model.seconds if stage is None else model.stages[stage]
        return flops / seconds.median / self.peak.median if flops and seconds.median else None


def run_in_turns(
    subjects: dict[str, Subject],
    device: torch.device,
    *,
    pictures: int,
    rounds: int,
    progress: Callable[[str, int, int], None] = lambda task, done, of: None,
) -> Bench:
    """Every model once to warm up, once to count its operations, and once in each of ``rounds`` rounds.

    subjects: run over ``pictures`` pictures each time they are called.
    """
    steps, done = len(subjects) * (rounds + 1), 0
    counted: dict[str, dict[str, float]] = {}
    found: dict[str, float] = {}
    for name, subject in subjects.items():
        subject(Stages(WallClock()))
        counted[name], count = _operations(subject)
        found[name] = count / pictures
        progress("warm up", done := done + 1, steps)
    peaks: list[float] = []
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for _ in range(rounds):
        peaks.append(matrix_peak(device))
        for name, subject in subjects.items():
            taken[name].append(_seconds(subject, device))
            progress("measure", done := done + 1, steps)
    first = [sum(stages.values()) for stages in next(iter(taken.values()))]
    return Bench(
        Spread.of(peaks),
        {
            name: _measured(each, first, counted[name], found[name], pictures, subjects[name].windows)
            for name, each in taken.items()
        },
    )


def matrix_peak(device: torch.device, repeats: int = 5) -> float:
    """Floating-point operations a second of matrix products in :func:`product_type`, the best of some."""
    side = PEAK_SIDE.get(device.type, 8192)
    a, b = torch.rand(2, side, side, device=device).unbind()
    best = 0.0
    with _products_as_convolutions():
        for _ in range(repeats):
            _wait(device)
            start = time.perf_counter()
            a @ b
            _wait(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def product_type(device: torch.device) -> Literal["float32", "TF32"]:
    """What a float32 convolution multiplies: on GPUs from Ampere on TF32, unless cuDNN has been told otherwise."""
    if device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        return "float32"
    return "TF32" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"


@contextmanager
def _products_as_convolutions() -> Iterator[None]:
    """Inside, a GPU rounds the factors of matrix products where it does those of convolutions.

    torch's defaults do so for convolutions alone, several times as fast as any product would seem to be.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _measured(
    rounds: Sequence[dict[str, float]], first: Sequence[float], flops: dict[str, float], found: float, pictures: int,
    windows: float | None,
) -> Measured:  # fmt: skip
    totals = [sum(stages.values()) for stages in rounds]
    names = list(dict.fromkeys(name for stages in rounds for name in stages))
    return Measured(
        seconds=Spread.of([total / pictures for total in totals]),
        ratio=Spread.of([total / unit for total, unit in zip(totals, first, strict=True)]),
        stages={name: Spread.of([stages.get(name, 0.0) / pictures for stages in rounds]) for name in names},
        flops={name: value / pictures for name, value in flops.items() if value},
        instances=found,
        windows=windows,
    )


def _seconds(subject: Subject, device: torch.device) -> dict[str, float]:
    stages: Stages[Any] = Stages(CudaClock() if device.type == "cuda" else WallClock())
    _wait(device)
    subject(stages)
    return stages.spent()


def _operations(subject: Subject) -> tuple[dict[str, float], int]:
    with FlopCounterMode(display=False) as counter:
        stages: Stages[int] = Stages(FlopClock(counter))
        count = subject(stages)
        return stages.spent(), count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
