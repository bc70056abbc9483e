"""A rehearsal: everything is built, a few steps are trained, nothing is written."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from rich.console import Console

from dsctool.config.schema import Config
from dsctool.engine.environment import peak_bytes, peak_memory, pick_device
from dsctool.engine.memory import available_bytes, within
from dsctool.engine.progress import Pace, counting, duration
from dsctool.engine.setup import Setup, prepare, summary
from dsctool.engine.trainer import step
from dsctool.errors import OutOfMemoryError
from dsctool.terms import Progress

WARM_STEPS = 5
"""Steps after the first one, which is slower than the rest."""
STEPS = 1 + WARM_STEPS
"""Of a rehearsal, at most."""
ENOUGH = 30.0
"""Seconds of warm steps after which no further one begins."""


@dataclass(frozen=True)
class Cost:
    """What some steps took. losses: of the last of them, by name. steps: how many.

    step_time: mean seconds of those after the first. peak: the most bytes used, of the GPU or else of the process.
    """

    losses: dict[str, float]
    steps: int
    step_time: float
    peak: int


@dataclass(frozen=True)
class Rehearsal:
    """What a run is about to do and what it will cost, by name.

    peak, step_time: of its cost; None where there was too little memory, as ``shortage`` says.
    """

    facts: dict[str, str]
    cost: Cost | None
    shortage: OutOfMemoryError | None


def rehearse(
    config: Config,
    *,
    data: Path,
    device: str = "auto",
    console: Console | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Rehearsal:
    """Set a run up, and train a few steps that nothing keeps, in the memory that is available.

    Takes what :func:`dsctool.engine.trainer.train` takes, and raises what it raises; but not having enough memory for
    the steps is what a rehearsal may find.
    """
    place = pick_device(device)
    available = available_bytes(place)
    with counting(console or Console()) as progress:
        setup = prepare(config, data=data, device=place, provenance=provenance, progress=progress)
    facts, steps = summary(setup), setup.steps
    notes = {"notes": "\n".join(setup.notes) or "none"}
    try:
        with within(available, place):
            cost = take_steps(setup)
    except OutOfMemoryError as error:
        shortage = OutOfMemoryError(str(error))  # without the frames that hold the memory
    else:
        left = duration(cost.step_time * steps)
        total = sum(cost.losses.values())
        each = " + ".join(f"{loss:.4f} {name}" for name, loss in cost.losses.items())
        costs = {
            "loss": f"{total:.4f} in step {cost.steps} = {each}",
            "memory": f"{peak_memory(place)} at most{_of(available)}",
            "time": f"{cost.step_time:.2f} s per step, {left} for all steps (evaluations come on top)",
        }
        return Rehearsal(facts | costs | notes, cost, None)
    del setup
    gc.collect()
    if place.type == "cuda":
        torch.cuda.empty_cache()
    return Rehearsal(facts | {"memory": f"not enough{_of(available)}"} | notes, None, shortage)


def take_steps(setup: Setup, most: int = STEPS) -> Cost:
    """Train a first step and some warm ones, ``most`` of them in all."""
    steps = chain.from_iterable(setup.batches.epoch(epoch) for epoch in range(most))
    losses, pace, began, done = {}, Pace(), 0.0, 0
    with setup.batches:
        for number, batches in enumerate(islice(steps, most)):
            result = step(setup, batches, number=number)
            losses = {name: loss.item() for name, loss in result.losses.items()}
            done = number + 1
            if number == 0:
                pace, began = Pace(), time.perf_counter()
                continue
            pace.step()
            if time.perf_counter() - began > ENOUGH:
                break
    return Cost(losses, done, pace.step_time, peak_bytes(setup.device))


def measure(config: Config, data: Path, device: str, progress: Progress | None = None, *, steps: int = STEPS) -> Cost:
    """The cost of ``config`` by itself, for a process of its own; raises what :func:`rehearse` does, and for memory."""
    place = pick_device(device)
    with within(available_bytes(place), place):
        return take_steps(prepare(config, data=data, device=place, progress=progress), steps)


def _of(available: int | None) -> str:
    return "" if available is None else f"; {available / 2**30:.2f} GiB were free"
