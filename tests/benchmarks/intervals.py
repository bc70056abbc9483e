"""Whether intervals mean what they say: ``python -m tests.benchmarks.intervals RUNS/ROW.. [--seeds 5] [--repeats 20]``.

The runs of rows of an ablation (``dsctool ablate``), each less the mean of its row, are dealt out to two rows of no
difference, anew for every repeat: intervals of their difference should hold 0 in 19 of 20, made from pairs at random
and without pairs. (What is left of ``n`` runs about their mean is too small by the root of ``(n - 1) / n``; that is put
right.)

``.assets/ablations.tar.xz`` has what was measured of the tiny grids so far, by seed, without weights; AP on images
drawn anew is rounded to 0.01 points, curves of training to four digits. Unpacked into a folder beside
``{"data": "FOLDER"}`` in an ``ablation.json``, ``dsctool ablate`` goes on from it.

Beside it: by how much errors of pairs (the first row against every row beside it that has the same seeds) are smaller.
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
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5, help="of each of the two rows")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = [list(seeds_of(row).values()) for row in given.rows]
    for k, kind in enumerate(KINDS):
        paired, unpaired = covered(rows, k, given.seeds, given.repeats, given.seed)
        print(
            f"{KIND_NAMES[kind]} AP, {sum(map(len, rows))} runs, {given.seeds} in each row: {paired} of {given.repeats}"
        )
        print(f"  intervals of pairs made at random hold 0, {unpaired} of {given.repeats} without pairs")
    first = given.rows[0]
    runs = seeds_of(first)
    for row in sorted(first.parent.iterdir()):
        other = seeds_of(row)
        shared = sorted(runs.keys() & other.keys())
        if row == first or len(shared) < 2:
            continue
        for k, kind in enumerate(KINDS):
            print(f"{row.name} minus {first.name}, {KIND_NAMES[kind]} AP: {spared(runs, other, shared, k)}")


def seeds_of(row: Path) -> dict[int, Measured]:
    """What was measured with each seed."""
    files = row.glob("seed-*/measured.npz")
    return {int(file.parent.name.removeprefix("seed-")): Measured.load(file) for file in files}


def covered(rows: Sequence[Sequence[Measured]], kind: int, seeds: int, repeats: int, seed: int) -> tuple[int, int]:
    """How many intervals of AP hold 0, of pairs and without."""
    number = NUMBERS.index("AP")
    left = []
    for runs in rows:
        if len(runs) < 2:
            raise SystemExit("every row needs two or more seeds that are measured")
        values, drawn, _, _ = stacked(runs)
        both = np.concatenate([values[:, None, kind, number], drawn[:, :, kind, number]], axis=1)
        left.append((both - both.mean(axis=0)) * (len(runs) / (len(runs) - 1)) ** 0.5)
    pool = np.concatenate(left)
    if 2 * seeds > len(pool):
        raise SystemExit(f"two rows of {seeds} seeds need {2 * seeds} runs; there are {len(pool)}")
    random = np.random.default_rng(seed)
    held = [0, 0]
    for _ in range(repeats):
        dealt = pool[random.permutation(len(pool))[: 2 * seeds]]
        one, other = dealt[:seeds], dealt[seeds:]
        for place, difference in enumerate((paired_difference, unpaired_difference)):
            held[place] += difference(one[:, 0], other[:, 0], one[:, 1:], other[:, 1:]).sign == 0
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
