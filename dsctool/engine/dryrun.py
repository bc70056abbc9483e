"""A rehearsal: everything is built, two steps are trained, nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from pathlib import Path

from rich.console import Console

from dsctool.config.schema import Config
from dsctool.engine.environment import peak_memory, pick_device
from dsctool.engine.progress import Pace, counting, duration
from dsctool.engine.setup import prepare, summary
from dsctool.engine.trainer import step

STEPS = 2


def rehearse(
    config: Config,
    *,
    data: Path,
    device: str = "auto",
    console: Console | None = None,
    provenance: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What a run is about to do and what it will cost, by name, after two training steps that nothing keeps.

    Takes what :func:`dsctool.engine.trainer.train` takes, and raises what it raises.
    """
    with counting(console or Console()) as progress:
        setup = prepare(config, data=data, device=pick_device(device), provenance=provenance, progress=progress)
    steps = chain.from_iterable(setup.batches.epoch(epoch) for epoch in range(STEPS))
    pace = Pace(window=1)  # the first step is slower than the rest
    with setup.batches:
        for number, batches in enumerate(islice(steps, STEPS)):
            losses = step(setup, batches, number=number).losses
            total = sum(loss.item() for loss in losses.values())
            pace.step()
    left = duration(pace.eta(steps=setup.steps, evaluations=0))
    return summary(setup) | {
        "loss": f"{total:.4f} in step {STEPS} = " + " + ".join(f"{loss:.4f} {name}" for name, loss in losses.items()),
        "memory": f"{peak_memory(setup.device)} at most",
        "time": f"{pace.step_time:.2f} s per step, {left} for all steps (evaluations come on top)",
        "notes": "\n".join(setup.notes) or "none",
    }
