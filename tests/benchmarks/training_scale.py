"""What a training set of COCO's size takes before training begins: ``python -m tests.benchmarks.training_scale``.

Makes the set of :mod:`tests.benchmarks.training_set`, and one of a thousandth of its size, and measures with both

- ``dsctool train CONFIG --dry-run``, from the start of the process to its end: seconds, and the most memory that it and
  its loader workers held. Images are scaled to 96x128, batches have one image, the semantic branch learns the
  instances, and nothing is frozen, as there are no weights to load. So its two steps take little, and what the large
  set takes more than the small one is the data's.
- the memory that each loader worker has for itself (:mod:`tests.benchmarks.loader_workers`): when it has loaded its
  first batches, and after 5,000 samples; beside that of workers that give tensors of the same size without any data.

    python -m tests.benchmarks.training_scale --folder sets --only dry-run --checkout ../dsctool-before
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.processes import REPOSITORY, Usage, measured

FAST = [
    "model.backbone.weights=null",
    "model.backbone.frozen_stages=-1",
    "data.semantic=instances",
    "train.batch_size=1",
    *(f"data.{split}_resize.{key}" for split in ("train", "test") for key in ("short_sides=[96]", "long_side=128")),
]
"""Overrides that make steps small, and need no files but the set's."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the sets are kept, and found again; otherwise they are not")
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--samples", type=int, default=5000, help="that each worker loads")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--config", default="htc_r50_fpn_1x_coco")
    parser.add_argument("--only", choices=["dry-run", "workers"], nargs="+", default=["dry-run", "workers"])
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, help="another checkout of dsctool, to measure it")
    given = parser.parse_args()
    checkout = given.checkout.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)).resolve()
        small, large = (made(folder, images) for images in (max(given.images // 1000, 20), given.images))
        for root in (small, large) if "dry-run" in given.only else ():
            print(f"train {given.config} --dry-run, {root.name}: {described(rehearsed(given.config, root, checkout))}")
        for name, data in (("torch alone", "-"), (large.name, large)) if "workers" in given.only else ():
            first, last = private(data, given.workers, given.samples, checkout)
            print(f"private MiB of each worker, {name}: {first} with its first batches, {last} at the end")


def made(folder: Path, images: int) -> Path:
    """The set in ``folder``, made by a process that does not leave this one its memory."""
    return Path(
        measured([sys.executable, "-m", "tests.benchmarks.training_set", folder, "--images", images]).output.strip()
    )


def rehearsed(config: str, root: Path, checkout: Path) -> Usage:
    """A dry run on the CPU."""
    words = ["-m", "dsctool", "train", config, *FAST, "--data", root, "--dry-run", "--device", "cpu"]
    return measured([sys.executable, *words], checkout=checkout)


def described(usage: Usage) -> str:
    """A dry run in words, with its own of its steps."""
    steps = next(line for line in usage.output.splitlines() if line.startswith("time ")).split(maxsplit=1)[1]
    return f"{usage.seconds:.1f} s ({usage.cpu:.1f} s of all cores), at most {usage.peak:.0f} MiB; {steps}"


def private(data: Path | str, workers: int, samples: int, checkout: Path) -> tuple[str, str]:
    """Of each worker, with its first batches and at the end."""
    script = Path(__file__).with_name("loader_workers.py")
    first, last = measured(
        [sys.executable, "-P", script, data, workers, samples], checkout=checkout
    ).output.splitlines()
    return first, last


if __name__ == "__main__":
    main()
