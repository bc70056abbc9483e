"""``dsctool runs``: training runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import JsonFile
from dsctool.cli.output import beside, keep_apart, prepare_file, write_json
from dsctool.cli.tables import print_table
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.runs.summary import RunSummary


def runs(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs, or folders of such.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Also draw AP, loss and learning rate of all of them.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """List training runs: what differs, how good, how far.

    A row for each run: its state, the best AP of its evaluations, steps done, time taken, and the values of its
    configuration that are not the same in all rows (of one run: those that differ from the nearest shipped one).

    States: running, finished, stopped (by a signal: it is saved), failed (train.log says why), killed (its process is
    gone), running? (on another machine), unknown (no word of it). "resume: yes" where dsctool train --resume goes on.

    Examples:

        dsctool runs runs

        dsctool runs runs/a runs/b --plot curves.png
    """
    from dsctool.runs.summary import RunSummary, find_runs

    keep_apart([plot, json_file], [])
    for path in (plot, json_file):
        prepare_file(path)
    found = []
    for folder in find_runs(folders):
        try:
            found.append(RunSummary.of(folder))
        except DsctoolError as error:
            typer.echo(f"left out: {folder}: {error}", err=True)
    if not found:
        raise DsctoolError("no run could be read")
    values = _values(found)
    if json_file is not None:
        write_json(json_file, [_as_json(run, own) for run, own in zip(found, values, strict=True)], indent=2)
    with beside(json_file):
        _show(found, values)
    if plot is not None:
        from dsctool.visualize.run_curves import save_curves

        save_curves(plot, {_name(run, found): run.history for run in found})
        typer.echo(f"\n{plot}", err=json_file is not None)


def _show(found: Sequence[RunSummary], values: Sequence[dict[str, str]]) -> None:
    from dsctool.engine.progress import duration
    from dsctool.runs.history import best_text

    rows = []
    for run, own in zip(found, values, strict=True):
        seconds, steps = run.history.seconds, run.steps
        rows.append(
            [
                str(run.folder),
                run.state,
                "yes" if run.resumable else "-",
                best_text(run.history),
                f"{run.history.step}" if steps is None else f"{run.history.step}/{steps}",
                "-" if seconds is None else duration(seconds),
                " ".join(f"{key}={value}" for key, value in own.items()) or "-",
            ]
        )
    print_table(["run", "state", "resume", "best", "steps", "time", "configuration"], rows)


def _values(found: Sequence[RunSummary]) -> list[dict[str, str]]:
    """Of each run, what its row says of its configuration."""
    from dsctool.runs.differences import nearest_shipped, shown, values_of, varying

    if len(found) == 1:
        return [{each.key: shown(each.right) for each in nearest_shipped(found[0].config).differences}]
    keys = varying([run.config for run in found])
    return [{key: table.get(key, "-") for key in keys} for table in (values_of(run.config) for run in found)]


def _as_json(run: RunSummary, values: dict[str, str]) -> dict[str, object]:
    best, main = run.history.best, run.history.main
    return {
        "run": str(run.folder),
        "state": run.state,
        "resumable": run.resumable,
        "reason": "" if run.said is None else run.said.reason,
        "best": None if best is None else {"kind": main, "AP": best[f"{main}_AP"], "epoch": best["epoch"]},
        "step": run.history.step,
        "steps": run.steps,
        "seconds": run.history.seconds,
        "configuration": values,
    }


def _name(run: RunSummary, found: Sequence[RunSummary]) -> str:
    """The folder's own name where no other run has it."""
    names = [each.folder.name for each in found]
    return run.folder.name if names.count(run.folder.name) == 1 else str(run.folder)
