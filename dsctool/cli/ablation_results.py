"""What the runs of an ablation have given: measured, timed, and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, cast

from dsctool.cli.ablation_runs import Trial
from dsctool.cli.output import counted, counting, write_json
from dsctool.config.grid import Grid
from dsctool.errors import DataError
from dsctool.evaluation.ablation import AblationReport, RowReport, Timed, estimate_rows
from dsctool.evaluation.comparison import compare
from dsctool.evaluation.huddle.measuring import Bootstrap
from dsctool.evaluation.resampling import Measured, measure
from dsctool.files import read_json
from dsctool.runs.history import METRICS, History, read_history

PICTURES, ROUNDS = 8, 5
"""Of the val images, and rounds over all rows, behind every inference time."""
Found = Mapping[str, Mapping[int, Measured]]
"""By row and seed."""


def measured(trials: Sequence[Trial], data: Path, bootstrap: Bootstrap) -> Found:
    """The results of every run that has some. What was measured before, on the same draws, is read again."""
    from dsctool.data.layout import find_split

    found: dict[str, dict[int, Measured]] = {}
    ready = [trial for trial in trials if trial.stats.exists()]
    if not ready:
        return found
    truth: Any = find_split(data, ready[0].config.data.val, "val").annotations
    with counted(ready, "results measured") as each:
        for trial in each:
            known = _known(trial, bootstrap)
            if known is None:
                comparison = compare(truth, trial.results)
                truth = comparison.source  # read once
                known = measure(comparison, bootstrap)
                known.save(trial.measured)
            found.setdefault(trial.row.name, {})[trial.seed] = known
    return found


def _known(trial: Trial, bootstrap: Bootstrap) -> Measured | None:
    path = trial.measured
    if not path.exists() or (trial.results.exists() and path.stat().st_mtime_ns < trial.results.stat().st_mtime_ns):
        return None
    try:
        known = Measured.load(path)
    except DataError:
        return None
    return known if len(known.drawn) == bootstrap.samples else None


def times_of(trials: Sequence[Trial], data: Path, device: str, file: Path) -> dict[str, Timed]:
    """Seconds a picture of every row, in turns, of the first seed whose weights are there; kept in ``file``."""
    from dsctool.data.layout import find_split
    from dsctool.engine.benchmark.plan import Plan, run
    from dsctool.engine.benchmark.subjects import Named

    first: dict[str, Trial] = {}
    for trial in trials:
        if trial.stats.exists() and (trial.trained / "last.pt").exists():
            first.setdefault(trial.row.name, trial)
    if not first:
        return {}
    models = {name: Named(str(trial.trained / "last.pt"), trial.row.seen, title=name) for name, trial in first.items()}
    newest = max(trial.stats.stat().st_mtime_ns for trial in first.values())
    if file.exists() and file.stat().st_mtime_ns >= newest:
        kept = cast("dict[str, dict[str, float]]", read_json(file))
        if kept.keys() == models.keys():
            return {name: Timed(**values) for name, values in kept.items()}
    images = find_split(data, trials[0].config.data.val, "val").images
    with counting() as progress:
        bench = run(
            list(models.values()),
            Plan(images=images, pictures=PICTURES, device=device),
            rounds=ROUNDS,
            progress=progress,
        )
    found = {name: Timed(**asdict(each.seconds)) for name, each in bench.models.items()}
    write_json(file, {name: asdict(each) for name, each in found.items()}, indent=2)
    return found


def histories(trials: Sequence[Trial]) -> dict[str, list[History]]:
    """Of the trainings of every row that is trained."""
    found: dict[str, list[History]] = {}
    for trial in trials:
        if trial.row.of is None and (trial.trained / METRICS).exists():
            found.setdefault(trial.row.name, []).append(read_history(trial.trained / METRICS))
    return found


def report_of(
    grid: Grid,
    trials: Sequence[Trial],
    found: Found,
    rates: Mapping[str, Mapping[float, float | None]],
    times: Mapping[str, Timed],
    failed: Mapping[str, str],
    bootstrap: Bootstrap,
) -> AblationReport:
    """All of it. rates, times: by row. failed: by the name of a run."""
    ordered = {row.name: found[row.name] for row in grid.rows if found.get(row.name)}
    estimates = {each.name: each for each in estimate_rows(ordered, grid.reference)}
    some = next(iter(next(iter(ordered.values())).values()))
    trained = histories(trials)
    rows = []
    for row in grid.rows:
        own = [trial for trial in trials if trial.row.name == row.name]
        seconds = [each.seconds for each in trained.get(row.name, ()) if each.seconds is not None]
        rate = own[0].config.optim.lr
        rows.append(
            RowReport(
                name=row.name,
                title=row.title,
                changes=(*(() if row.of is not None else row.changes), *row.seen),
                of=row.of,
                rate=rate,
                factor=rate / row.config.optim.lr,
                tried=rates.get(row.name, {}),
                seconds=mean(seconds) if seconds else None,
                time=times.get(row.name),
                failed={name: reason for name, reason in failed.items() if name.startswith(f"{row.name}, ")},
                estimates=estimates.get(row.name),
            )
        )
    return AblationReport(
        grid=grid.name,
        description=grid.description,
        reference=grid.reference,
        seeds=tuple(sorted({trial.seed for trial in trials})),
        draws=bootstrap.samples,
        images=int(some.images.max()),
        cell_images=some.images.tolist(),
        rows=rows,
    )
