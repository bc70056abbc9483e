"""``dsctool train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import ConfigName, DataRoot, Device, Overrides
from dsctool.cli.output import counting
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from dsctool.config.loading import Resolved
    from dsctool.engine.dryrun import Cost, Rehearsal

Output = Annotated[
    Path | None, typer.Option("--output", metavar="RUN", help="Folder of the run; must not exist unless --resume.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --output from its last.pt.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Train some steps, say what the run would cost, and write nothing.")
]
SaveMemory = Annotated[
    bool,
    typer.Option(
        "--save-memory",
        help="With --dry-run: also try what takes less memory, and say how much; done anyway where memory is short.",
    ),
]


def train(
    config: ConfigName,
    data: DataRoot,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    save_memory: SaveMemory = False,
    device: Device = "auto",
) -> None:
    """Train a detector.

    Example:

        dsctool train htc_tiny optim.lr=1e-3 --data shapes --output runs/first

    RUN gets config.yaml (resolved), metrics.jsonl, train.log, last.pt (to continue) and best.pt (to use).

    SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 end the run after the current step: last.pt is written, the exit code is 75,
    and the same command with --resume continues as if nothing had happened. A second Ctrl-C ends it at once.
    """
    if output is None and not dry_run:
        raise typer.BadParameter("say where the run is recorded (or use --dry-run)", param_hint="--output")

    if save_memory and not dry_run:
        raise typer.BadParameter("it is for --dry-run, which tries what a run would cost", param_hint="--save-memory")

    from rich.console import Console

    from dsctool.config.loading import resolve_config

    resolved = resolve_config(config, overrides or ())
    console = Console()
    if output is None or dry_run:
        _rehearse(resolved, data, device, console, save_memory=save_memory)
        return

    from dsctool.engine.signals import EXIT_INTERRUPTED, RunInterruptedError
    from dsctool.engine.trainer import train as run

    try:
        run(
            resolved.config,
            data=data,
            output=output,
            resume=resume,
            device=device,
            console=console,
            provenance=resolved.provenance,
        )
    except RunInterruptedError as interruption:
        typer.echo(f"dsctool: {interruption}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from interruption


def _rehearse(resolved: Resolved, data: Path, device: str, console: Console, *, save_memory: bool) -> None:
    from dsctool.engine.dryrun import rehearse

    found = rehearse(resolved.config, data=data, device=device, console=console, provenance=resolved.provenance)
    for name, text in found.facts.items():
        typer.echo(f"{name:<16} " + text.replace("\n", "\n" + " " * 17))
    if save_memory or found.shortage is not None:
        _show_savings(resolved, data, device, found)
    if found.shortage is not None:
        raise found.shortage


def _show_savings(resolved: Resolved, data: Path, device: str, found: Rehearsal) -> None:
    """What takes less memory, row by row: each is tried in a process of its own."""
    from dsctool.engine.savings import savings, try_savings

    options = savings(resolved.config)
    tried = []
    with counting() as progress:
        for saving in try_savings(resolved.config, options, data=data, device=device):
            tried.append(saving)
            progress("settings tried", len(tried), len(options))
    rows = [("as it is", found.cost), *((" ".join(saving.words), saving.cost) for saving in tried)]
    typer.echo()
    print_table(["settings", "memory at most", "s per step"], [[words, *_costs(cost)] for words, cost in rows])


def _costs(cost: Cost | None) -> tuple[str, str]:
    return ("too little", "-") if cost is None else (f"{cost.peak / 2**30:.2f} GiB", f"{cost.step_time:.2f}")
