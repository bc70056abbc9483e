"""A checkpoint run on a split of a data set, for the commands that measure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.options import ComputedIn, Split
from dsctool.cli.output import counting

if TYPE_CHECKING:
    import torch

    from dsctool.engine.processes import Processes
    from dsctool.engine.split_results import SplitResults


def inference_device(name: str, precision: ComputedIn = ComputedIn.FLOAT32) -> torch.device:
    """The device of that name, and this process made ready for running a model on it and for nothing else.

    Raises ConfigError where there is none, or where it does not compute in ``precision``.
    """
    from dsctool.engine.environment import keep_freed_memory, pick_device
    from dsctool.engine.precision import require

    device = pick_device(name)
    require(precision.value, device)
    keep_freed_memory(device)
    return device


@contextmanager
def inference_processes(
    name: str, precision: ComputedIn = ComputedIn.FLOAT32
) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that run a model together while the block runs, and this one's device, made ready.

    Raises ConfigError as :func:`inference_device`.
    """
    from dsctool.engine.environment import keep_freed_memory
    from dsctool.engine.precision import require
    from dsctool.engine.processes import joined

    with joined(name) as (processes, device):
        require(precision.value, device)
        keep_freed_memory(device)
        yield processes, device


def run_checkpoint(
    path: Path,
    overrides: Sequence[str],
    root: Path,
    split: Split,
    *,
    device: torch.device,
    task: str,
    candidates: bool = False,
    config: str | None = None,
    precision: ComputedIn = ComputedIn.FLOAT32,
    processes: Processes | None = None,
) -> SplitResults:
    """Its results, while progress is shown. task: what that is called. candidates: also the boxes before NMS.

    config: of a published file. processes: share the images; the first one has the results.
    """
    from dsctool.engine.inference import keep_candidates, load_runnable
    from dsctool.engine.processes import LONE
    from dsctool.engine.split_results import run_on_split

    model = load_runnable(path, overrides=overrides, device=device, config=config)
    if candidates:
        keep_candidates(model)
    processes = processes or LONE
    with counting() as progress:
        shown = progress if processes.first else None
        run = run_on_split(
            model, root, split=split.value, task=task, precision=precision.value, progress=shown, processes=processes
        )
    if processes.first:
        for note in run.notes:
            typer.echo(note, err=True)
    return run
