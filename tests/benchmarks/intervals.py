"""Whether intervals mean what they say: ``python -m tests.benchmarks.intervals RUNS/ROW [--repeats 20]``.

The seeds of one row of an ablation (``dsctool ablate``) are dealt out to two rows of no difference, anew for every
repeat: intervals of their difference should hold 0 in 19 of 20. Seeds of different trainings have nothing in common, so
these are the intervals without pairs; with an even number of seeds, pairs are made at random as well.

``records.tar.xz`` has what was measured of the tiny grids so far, by seed, without weights. Unpacked into a folder
beside ``{"data": "FOLDER"}`` in an ``ablation.json``, ``dsctool ablate`` goes on from it.

Beside it: by how much errors of pairs (``RUNS/ROW`` against every row beside it that has the same seeds) are smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsctool.evaluation.resampling import NUMBERS, Measured, stacked
from dsctool.evaluation.seeds import paired_difference, unpaired_difference
from dsctool.terms import KIND_NAMES, KINDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    runs = seeds_of(given.row)
    for k, kind in enumerate(KINDS):
        paired, unpaired = covered(list(runs.values()), k, given.repeats, given.seed)
        print(f"{KIND_NAMES[kind]} AP, {len(runs)} seeds in two halves: {paired} of {given.repeats} intervals of pairs")
        print(f"  made at random hold 0, {unpaired} of {given.repeats} without pairs")
    for row in sorted(given.row.parent.iterdir()):
        other = seeds_of(row)
        shared = sorted(runs.keys() & other.keys())
        if row == given.row or len(shared) < 2:
            continue
        for k, kind in enumerate(KINDS):
            print(f"{row.name} minus {given.row.name}, {KIND_NAMES[kind]} AP: {spared(runs, other, shared, k)}")


def seeds_of(row: Path) -> dict[int, Measured]:
    """What was measured with each seed."""
    files = row.glob("seed-*/measured.npz")
    return {int(file.parent.name.removeprefix("seed-")): Measured.load(file) for file in files}


def covered(runs: Sequence[Measured], kind: int, repeats: int, seed: int) -> tuple[int, int]:
    """How many intervals of AP hold 0, of pairs and without."""
    values, drawn, _, _ = stacked(runs)
    values, drawn = values[:, kind, NUMBERS.index("AP")], drawn[:, :, kind, NUMBERS.index("AP")]
    random, half = np.random.default_rng(seed), len(runs) // 2
    held = [0, 0]
    for _ in range(repeats):
        order = random.permutation(len(runs))
        one, other = order[:half], order[half : 2 * half]
        rows = values[one], values[other], drawn[one], drawn[other]
        for place, difference in enumerate((paired_difference, unpaired_difference)):
            held[place] += difference(*rows).sign == 0
    return held[0], held[1]


def spared(base: dict[int, Measured], own: dict[int, Measured], seeds: Sequence[int], kind: int) -> str:
    """Both intervals, and how many seeds pairs are worth."""
    sides = [stacked([runs[seed] for seed in seeds]) for runs in (own, base)]
    number = NUMBERS.index("AP")
    values = [side[0][:, kind, number] for side in sides]
    drawn = [side[1][:, :, kind, number] for side in sides]
    paired, unpaired = paired_difference(*values, *drawn), unpaired_difference(*values, *drawn)
    shown = [
        f"{100 * each.value:+.2f} ({100 * each.low:+.2f} to {100 * each.high:+.2f})" for each in (paired, unpaired)
    ]
    worth = len(seeds) * (unpaired.by_seeds / paired.by_seeds) ** 2
    return f"pairs {shown[0]}, without {shown[1]}; {len(seeds)} seeds in pairs are as sure as {worth:.1f} without"


if __name__ == "__main__":
    main()
