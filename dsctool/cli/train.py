"""``dsctool train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import CONFIG_HELP, DataRoot, Device, Overrides, is_override, shipped_names
from dsctool.cli.output import counting
from dsctool.cli.tables import print_table
from dsctool.errors import CheckpointError

if TYPE_CHECKING:
    from rich.console import Console

    from dsctool.config.loading import Resolved
    from dsctool.engine.dryrun import Cost, Rehearsal

ConfigOrRun = Annotated[
    str | None,
    typer.Argument(
        metavar="CONFIG", help=f"{CONFIG_HELP} With --resume it may be left out.", autocompletion=shipped_names
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", metavar="RUN", help="Folder of the run; must not exist unless --resume.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --output from its last.pt.")]
Keep = Annotated[
    int, typer.Option("--keep", min=0, metavar="N", help="Also keep the weights of the last N epochs, RUN/epoch_*.pt.")
]
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
    data: DataRoot,
    config: ConfigOrRun = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Resume = False,
    keep: Keep = 0,
    dry_run: DryRun = False,
    save_memory: SaveMemory = False,
    device: Device = "auto",
) -> None:
    """Train a detector.

    Example:

        dsctool train htc_tiny optim.lr=1e-3 --data shapes --output runs/first

        dsctool train --data shapes --output runs/first --resume

    RUN gets config.yaml (resolved), metrics.jsonl, train.log, report.html (curves and pictures, to look at), last.pt
    (to continue), previous.pt (the one before it, which --resume takes where last.pt is damaged) and best.pt (to use).
    With --resume and no CONFIG the run's own config.yaml is used; KEY=VALUE that changes what the run is about is
    refused.

    Several processes, of one machine or many, train together when torchrun starts them:

        torchrun --nproc-per-node 4 -m dsctool train htc_tiny --data shapes --output runs/first

    A run goes on with any number of processes, and with torchrun's --max-restarts by itself.

    SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 end the run after the current step: last.pt is written, the exit code is 75,
    and the same command with --resume continues as if nothing had happened. A second Ctrl-C ends it at once.
    """
    if output is None and not dry_run:
        raise typer.BadParameter("say where the run is recorded (or use --dry-run)", param_hint="--output")

    if save_memory and not dry_run:
        raise typer.BadParameter("it is for --dry-run, which tries what a run would cost", param_hint="--save-memory")

    from rich.console import Console

    from dsctool.config.loading import resolve_config

    words = list(overrides or ())
    source: Path | str | None = config
    if config is not None and is_override(config):
        source, words = None, [config, *words]
    resolved = resolve_config(_own_config(output, resume) if source is None else source, words)
    console = Console()
    if output is None or dry_run:
        _rehearse(resolved, data, device, console, save_memory=save_memory)
        return

    from dsctool.engine.processes import joined, restarted
    from dsctool.engine.signals import EXIT_INTERRUPTED, RunInterruptedError
    from dsctool.engine.trainer import train as run
    from dsctool.visualize.pages.run.page import RunPage

    with joined(device) as (processes, chosen):
        try:
            run(
                resolved.config,
                data=data,
                output=output,
                resume=resume or (restarted() and (output / "last.pt").exists()),
                device=chosen,
                console=console,
                provenance=resolved.provenance,
                keep=keep,
                processes=processes,
                page=RunPage(),
            )
        except RunInterruptedError as interruption:
            if processes.first:
                typer.echo(f"dsctool: {interruption}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from interruption


def _own_config(output: Path | None, resume: bool) -> Path:
    """The configuration of the run in ``output``, which is to be resumed."""
    if output is None or not resume:
        raise typer.BadParameter("name a configuration: only --resume finds it in the run", param_hint="CONFIG")
    path = output / "config.yaml"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, so there is no run to resume. Start without --resume.")
    return path


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
