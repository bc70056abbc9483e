"""The runs behind the rows of an ablation: their folders, and the commands that make them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from dsctool.cli.plan import Step
from dsctool.cli.side_by_side import Job
from dsctool.config.dump import diff_configs
from dsctool.config.grid import Grid, RatesConfig, Row
from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.errors import DsctoolError
from dsctool.files import read_json, write_text
from dsctool.runs.state import RunState, read_state
from dsctool.runs.summary import CONFIG

RUNS, RATES = "runs", "rates"


@dataclass(frozen=True)
class Trial:
    """A row with a seed. name: for people. folder: of its results.

    trained: the run whose last weights are measured, for most rows the same folder. words: what is trained.
    """

    row: Row
    seed: int
    name: str
    folder: Path
    trained: Path
    words: tuple[str, ...]

    @property
    def results(self) -> Path:
        """What the model has found."""
        return self.folder / "predictions.json"

    @property
    def stats(self) -> Path:
        """COCO's numbers of these results."""
        return self.folder / "stats.json"

    @property
    def measured(self) -> Path:
        """The same on images drawn anew."""
        return self.folder / "measured.npz"

    @cached_property
    def config(self) -> Config:
        """That it is trained with."""
        return load_config(self.row.base, list(self.words))

    @property
    def is_trained(self) -> bool:
        """Whether the training has ended.

        Raises:
            DsctoolError: it still runs, or is of another configuration.
        """
        state = read_state(self.trained)
        if state is None:
            return False
        self._check(state)
        return state.word == "finished"

    def _check(self, state: RunState) -> None:
        if state.seen == "running":
            raise DsctoolError(f"{self.trained}: process {state.process} is training it; wait for its end, or end it")
        there = load_config(self.trained / CONFIG)
        # What the grid leaves open, such as the number of classes, the run has from its data and its other values.
        wrong = [each for each in diff_configs(there, self.config) if each.right not in (None, "auto")]
        if wrong:
            first = wrong[0]
            raise DsctoolError(
                f"{self.trained}: is a run with {first.key}={first.left}, but the grid says {first.right}"
                f"{f' (and {len(wrong) - 1} more differ)' if len(wrong) > 1 else ''}: name another --output"
            )

    @property
    def is_measured(self) -> bool:
        """Whether its results are of the weights that are there, looked at as the row says.

        Weights may have been removed since.
        """
        weights = self.trained / "last.pt"
        if not self.stats.exists():
            return False
        known = self.row.of is None or (self._record.exists() and read_json(self._record) == list(self.row.seen))
        return known and (not weights.exists() or self.stats.stat().st_mtime_ns >= weights.stat().st_mtime_ns)

    @property
    def _record(self) -> Path:
        """How the weights of another row were looked at."""
        return self.folder / "seen.json"

    def _begin(self) -> None:
        """What was measured before counts no more."""
        self.stats.unlink(missing_ok=True)
        if self.row.of is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self._record, json.dumps(list(self.row.seen)) + "\n")

    def job(self, data: Path) -> Job | None:
        """What is still to be done; None where nothing is."""
        steps = []
        if self.row.of is None and not self.is_trained:
            words = ("train", self.row.base, *self.words, "--data", str(data), "--output", str(self.trained))
            steps.append(Step(f"Train {self.name}", words, self.trained / "last.pt"))
        if steps or not self.is_measured:
            self._begin()
            files = ("--predictions", str(self.results), "--json", str(self.stats))
            words = ("eval", str(self.trained / "last.pt"), *self.row.seen, "--data", str(data), *files)
            steps.append(Step(f"Measure {self.name}", words, self.stats))
        return Job(self.name, steps, self.folder.parent / f"{self.folder.name}.log") if steps else None


@dataclass(frozen=True)
class Trials:
    """All runs of some rows in a folder, which several grids may share."""

    output: Path
    grid: Grid

    def of(self, row: Row, seed: int, factor: float) -> Trial:
        """factor: of the learning rate of the row that is trained."""
        folder = self.output / RUNS / row.name / f"seed-{seed}"
        trained = self.output / RUNS / (row.of or row.name) / f"seed-{seed}"
        words = (*row.overrides, *_rate(row, factor), f"train.seed={seed}")
        return Trial(row, seed, f"{row.name}, seed {seed}", folder, trained, words)

    def all(self, seeds: Sequence[int], factors: Mapping[str, float]) -> list[Trial]:
        """Every row with every seed, the first seed of all rows first. factors: of learning rates; 1 where none is."""
        return [self.of(row, seed, factors.get(row.of or row.name, 1.0)) for seed in seeds for row in self.grid.rows]

    def rates(self, rates: RatesConfig) -> dict[str, dict[float, Trial]]:
        """By row and factor, those that only say which learning rate a row gets."""
        found: dict[str, dict[float, Trial]] = {}
        for row in self.grid.trained:
            for factor in rates.factors:
                folder = self.output / RATES / row.name / f"x{factor:g}"
                words = (*row.overrides, *rates.overrides, *_rate(row, factor), f"train.seed={rates.seed}")
                trial = Trial(row, rates.seed, f"{row.name}, rate x {factor:g}", folder, folder, words)
                found.setdefault(row.name, {})[factor] = trial
        return found


def _rate(row: Row, factor: float) -> tuple[str, ...]:
    return () if factor == 1 else (f"optim.lr={row.config.optim.lr * factor:.6g}",)


def best_factors(trials: Mapping[str, Mapping[float, Trial]]) -> dict[str, float]:
    """The factor of every row whose results are the best; 1 where none of its runs has any."""
    return {
        name: max(
            (factor for factor in row if row[factor].stats.exists()), key=lambda each: _score(row[each]), default=1.0
        )
        for name, row in trials.items()
    }


def scores(trials: Mapping[float, Trial]) -> dict[float, float | None]:
    """What each factor gave, from 0 to 1."""
    return {factor: _score(trial) if trial.stats.exists() else None for factor, trial in trials.items()}


def _score(trial: Trial) -> float:
    stats = cast("dict[str, dict[str, float] | None]", read_json(trial.stats))
    numbers = stats.get("segm") or stats["bbox"]
    assert numbers is not None
    return numbers["AP"]


def jobs_of(trials: Sequence[Trial], data: Path) -> list[Job]:
    """What is to be done for them, rows that only look at others' weights after these."""
    found: dict[Path, Job] = {}
    for trial in trials:
        job = trial.job(data)
        if job is None:
            continue
        trained = found.get(trial.trained)
        if trial.row.of is not None and trained is not None:
            job = Job(job.name, job.steps, job.log, (trained.name,))
        found[trial.folder] = job
    return list(found.values())
