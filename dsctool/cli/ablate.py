"""``dsctool ablate``: the rows of a paper's table, each trained with several seeds."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import DataRoot, Overrides
from dsctool.cli.output import counted, prepare_folder, write_json
from dsctool.cli.tables import print_table
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.cli.ablation_runs import Trial
    from dsctool.cli.side_by_side import Ended, Job
    from dsctool.config.grid import Grid
    from dsctool.evaluation.huddle.measuring import Bootstrap

RECORD = "ablation.json"
GridName = Annotated[str, typer.Argument(metavar="GRID", help="A YAML file, or a shipped grid: dsctool configs grids.")]
Seeds = Annotated[str, typer.Option("--seeds", metavar="N,N,..", help="Of trainings; rows with the same are pairs.")]
Output = Annotated[
    Path, typer.Option("--output", metavar="DIR", help="Folder of the runs; several grids may share it.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, metavar="N", help="Runs at once, on every device.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="ROW", help="This row and the reference; may be repeated.")
]
Devices = Annotated[str, typer.Option("--device", metavar="NAME,..", help="auto, cpu, or cuda:0,cuda:1 and so on.")]
Reference = Annotated[
    str | None, typer.Option("--reference", metavar="ROW", help="That the others are compared with, not the grid's.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and train nothing.")]
Draws = Annotated[
    int, typer.Option("--bootstrap", min=0, metavar="N", help="Draws of the images behind the intervals.")
]
Times = Annotated[bool, typer.Option("--times/--no-times", help="Measure the inference time of every row.")]


def ablate(
    grid: GridName,
    data: DataRoot,
    output: Output,
    overrides: Overrides = None,
    seeds: Seeds = "0,1,2",
    jobs: Jobs = 1,
    only: Only = None,
    reference: Reference = None,
    dry_run: DryRun = False,
    bootstrap: Draws = 400,
    times: Times = True,
    device: Devices = "auto",
) -> None:
    """Train every row of a grid with several seeds, and say what differs for sure.

    A grid names a base configuration and rows that change something in it. All rows are checked, and a few steps of
    each tried, before anything runs. Every run is an ordinary one (DIR/runs/ROW/seed-N); with the same seed, rows see
    the same images in the same order, augmented alike. The same command goes on where it was stopped, and leaves alone
    what has ended; a run that fails does not keep the others from running.

    Measured are the last weights on the val split: AP of boxes and masks, mean and standard deviation over the seeds,
    and differences to the reference row with 95 % intervals that know of seeds and images both. DIR/GRID gets
    report.html, table.csv, table.tex and results.json.

    Examples:

        dsctool data synth --preset huddles --output huddles

        dsctool ablate htc_parts_tiny --data huddles --seeds 0,1,2 --jobs 2 --output ablations
    """
    from dsctool.cli.ablation_runs import Trials, best_factors, jobs_of, scores
    from dsctool.config.grid import load_grid
    from dsctool.evaluation.huddle.measuring import Bootstrap

    chosen = load_grid(grid, overrides or ())
    if reference is not None:
        chosen = chosen.against(reference)
    chosen = chosen.only(only or ())
    numbers = _seeds(seeds)
    _refuse_held_out(chosen)
    places = [each for each in device.split(",") for _ in range(jobs)]
    trials = Trials(output, chosen)
    if dry_run:
        _show_costs(chosen, len(numbers), data, places)
        return
    _begin(output, data)
    tried = {} if chosen.rates is None else trials.rates(chosen.rates)
    first = jobs_of([trial for row in tried.values() for trial in row.values()], data)
    if first or not all(trial.is_trained for trial in trials.all(numbers, best_factors(tried))):
        _show_costs(chosen, len(numbers), data, places)
    failed = _work(first, places)
    wanted = trials.all(numbers, best_factors(tried))
    failed |= _work(jobs_of(wanted, data), places)
    rates = {name: scores(row) for name, row in tried.items()}
    folder = output / chosen.name
    _report(wanted, rates, failed, chosen, data, Bootstrap(bootstrap), folder, device=places[0] if times else None)
    if failed:
        raise DsctoolError(
            f"{len(failed)} runs have failed, and the same command tries them again: {', '.join(failed)}"
        )


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise typer.BadParameter(f"{text!r} are no whole numbers with commas between them", param_hint="--seeds")
    found = [int(word) for word in text.split(",")]
    if len(set(found)) < len(found):
        raise typer.BadParameter(f"{text!r}: one appears twice", param_hint="--seeds")
    return found


def _refuse_held_out(grid: Grid) -> None:
    """All rows are measured on one split."""
    for row in grid.rows:
        if row.config.data.val_share is not None:
            raise DsctoolError(f"row {row.name}: data.val_share: an ablation is measured on a val split of its own")
        if row.config.data.val != grid.rows[0].config.data.val:
            raise DsctoolError(f"row {row.name}: data.val is not that of {grid.rows[0].name}: they cannot be compared")


def _begin(output: Path, data: Path) -> None:
    """Runs in a folder are of one data set."""
    from dsctool.files import read_json

    prepare_folder(output)
    record, content = output / RECORD, {"data": str(data.resolve())}
    if record.exists():
        if read_json(record) != content:
            raise DsctoolError(f"{output}: has runs on other data ({record}); name another --output")
    elif any(output.iterdir()):
        raise DsctoolError(f"{output}: is not empty, and no ablation is on record there; name a new folder")
    else:
        write_json(record, content, indent=2)


# --- what it costs ----------------------------------------------------------------------------------


def _show_costs(grid: Grid, seeds: int, data: Path, places: Sequence[str]) -> None:
    """A few steps of every row, as many rows at once as will be."""
    from dsctool.config.loading import load_config
    from dsctool.engine.progress import duration
    from dsctool.engine.run_cost import run_costs

    rows, table, total, longest = grid.trained, [], 0.0, 0.0
    with counted(rows, "rows tried") as tried:
        costs = run_costs({f"row {row.name}": row.config for row in rows}, data, places, _threads(places))
        for row, cost in zip(tried, costs, strict=True):
            seconds = seeds * cost.seconds
            if grid.rates is not None:
                short = load_config(row.base, [*row.overrides, *grid.rates.overrides])
                seconds += len(grid.rates.factors) * cost.shortened(short)
            total, longest = total + seconds, max(longest, cost.seconds)
            one, every = duration(cost.seconds), duration(seconds)
            table.append([row.name, f"{cost.steps}", f"{cost.step_time:.2f}", one, every])
    rates = "" if grid.rates is None else " and rates"
    print_table(["row", "steps", "s per step", "a run", f"{seeds} seeds{rates}"], table)
    left = max(total / len(places), longest)
    typer.echo(f"about {duration(left)} in all, without evaluations: until {_clock(left)}")


def _clock(seconds: float) -> str:
    """When that has passed."""
    then = time.localtime(time.time() + seconds)
    return time.strftime("%H:%M" if seconds < 43_200 else "%A, %d %B, %H:%M", then)


def _threads(places: Sequence[str]) -> int | None:
    """Of the CPU, for each of several that run at once; None where one has all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return None if len(places) == 1 else max(1, cores // len(places))


# --- running ----------------------------------------------------------------------------------------


def _work(jobs: Sequence[Job], places: Sequence[str]) -> dict[str, str]:
    """Run them; what failed, and why.

    Raises:
        typer.Exit: a signal has stopped it.
    """
    from dsctool.cli.side_by_side import Crew
    from dsctool.engine.progress import duration
    from dsctool.engine.signals import EXIT_INTERRUPTED, StopRequest

    failed, began, stopped = dict[str, str](), time.monotonic(), False
    with StopRequest() as stop:
        for done, ended in enumerate(Crew(places, _threads(places)).run(jobs, stop=stop), start=1):
            stopped |= ended.stopped
            if ended.reason is not None:
                failed[ended.job.name] = ended.reason
            left = (time.monotonic() - began) / done * (len(jobs) - done)
            rest = f"; about {duration(left)} left, until {_clock(left)}" if left and not stop.received else ""
            typer.echo(f"[{done}/{len(jobs)}] {ended.job.name}: {_ending(ended)}{rest}")
        if stopped or stop.received is not None:
            typer.echo("dsctool: stopped; the same command goes on", err=True)
            raise typer.Exit(EXIT_INTERRUPTED)
    return failed


def _ending(ended: Ended) -> str:
    from dsctool.engine.progress import duration

    if ended.stopped:
        return "stopped"
    return f"failed: {ended.reason}" if ended.reason is not None else f"done in {duration(ended.seconds)}"


# --- what came out ------------------------------------------------------------------------------------


def _report(
    trials: Sequence[Trial],
    rates: Mapping[str, Mapping[float, float | None]],
    failed: Mapping[str, str],
    grid: Grid,
    data: Path,
    bootstrap: Bootstrap,
    folder: Path,
    *,
    device: str | None,
) -> None:
    """Measure, write the tables and the page, and show the tables. device: for inference times; None: without."""
    from dsctool.cli.ablation_results import histories, measured, report_of, times_of
    from dsctool.files import write_text
    from dsctool.visualize.pages.ablation.page import ablation_page
    from dsctool.visualize.pages.ablation.tables import (
        as_csv,
        as_json,
        as_latex,
        crowded_text,
        differences_table,
        growth_table,
        means_table,
    )

    prepare_folder(folder)
    found = measured(trials, data, bootstrap)
    if not any(found.values()):
        return
    times = {} if device is None else times_of(trials, data, device, folder / "times.json")
    report = report_of(grid, trials, found, rates, times, failed, bootstrap)
    write_json(folder / "results.json", as_json(report), indent=2)
    write_text(folder / "table.csv", as_csv(report))
    write_text(folder / "table.tex", as_latex(report))
    page = ablation_page(report, command=_command(), histories=histories(trials), folder=folder)
    write_text(folder / "report.html", page)
    for kind in report.kinds:
        print_table(*means_table(report, kind))
        typer.echo()
    if report.compared:
        typer.echo(f"minus {report.reference}, with intervals of 95 %:")
        print_table(*differences_table(report))
        typer.echo(f"\nminus {report.reference}, on {crowded_text(report)}:")
        print_table(*growth_table(report))
    typer.echo(f"\n{folder / 'report.html'}")


def _command() -> str:
    return shlex.join(["dsctool", *sys.argv[1:]])
