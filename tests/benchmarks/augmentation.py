"""What copy-paste and jitter do for mask AP where things crowd: ``python -m tests.benchmarks.augmentation DIR``.

Makes 64 training and 48 validation scenes of heaps (128 pixels, four classes), trains ``htc_tiny`` on them for eight
epochs (256 steps) with each of four kinds of augmentation and each of several seeds, and prints mask AP: the mean of
each kind and of its differences from none, seed by seed, with intervals of 95 % (Student's t). Runs that DIR has are
not repeated, and one that was stopped goes on. A run takes about two minutes of a core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PASTE = "data.copy_paste={probability: 0.5, instances: [1, 8]}"
JITTER = "data.jitter={size: 128, scale: [0.5, 1.5]}"
ARMS = {"none": (), "copy-paste": (PASTE,), "jitter": (JITTER,), "both": (PASTE, JITTER)}
SIZES = "{short_sides: [128], long_side: 128}"
RECIPE = (
    f"data.train_resize={SIZES}", f"data.test_resize={SIZES}", "data.workers=0", "model.rpn.test_max_proposals=100",
    "train.batch_size=2", "train.epochs=8", "train.eval_interval=8", "optim.lr=5e-3", "optim.decay=linear",
    "optim.warmup_steps=40",
)  # fmt: skip
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % points of Student's t, from one degree of freedom on."""


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, len(T) + 2))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    scenes = args.folder / "scenes"
    if not scenes.exists():
        counts = ("--train-images", "64", "--val-images", "48", "--size", "128x128", "--seed", "5", "--huddle", "0.8")
        dsctool("data", "synth", "--output", str(scenes), *counts, "--classes", "fish,pebble,shell,starfish")
    found: dict[str, list[float]] = {arm: [] for arm in args.arms}
    for seed in range(args.seeds):  # all kinds of a seed, so that what is there can be compared at any time
        for arm in args.arms:
            found[arm].append(mask_ap(args.folder / f"{arm}-{seed}", scenes, ARMS[arm], seed))
            print(f"{arm}, seed {seed}: {found[arm][-1]:.4f}", flush=True)
    for line in table(found):
        print(line)


def mask_ap(run: Path, scenes: Path, changes: Sequence[str], seed: int) -> float:
    """Of the last epoch's weights."""
    metrics = run / "metrics.jsonl"
    if not (numbers := evaluations(metrics)):
        resume = ["--resume"] if (run / "last.pt").exists() else []
        words = ("train", "htc_tiny", *RECIPE, *changes, f"train.seed={seed}")
        dsctool(*words, "--data", str(scenes), "--output", str(run), *resume)
        numbers = evaluations(metrics)
    return numbers[-1]


def evaluations(metrics: Path) -> list[float]:
    """Mask AP of every evaluation of a run."""
    lines = map(json.loads, metrics.read_text().splitlines()) if metrics.exists() else ()
    return [line["segm_AP"] for line in lines if line["kind"] == "eval"]


def dsctool(*words: str) -> None:
    """Run a command, and stop where it fails."""
    subprocess.run([sys.executable, "-m", "dsctool", *words], check=True, stdout=subprocess.DEVNULL)


def table(found: dict[str, list[float]]) -> list[str]:
    """A line for each kind: its mean, and that of its differences from the first kind, with intervals."""
    first, lines = next(iter(found.values())), []
    for arm, values in found.items():
        differences = [value - other for value, other in zip(values, first, strict=True)]
        against = "" if values is first else f"   difference {spread(differences)}"
        lines.append(f"{arm:<12}{spread(values)}{against}")
    return lines


def spread(values: Sequence[float]) -> str:
    """The mean with its interval."""
    half = T[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.4f} +- {half:.4f}"


if __name__ == "__main__":
    main()
