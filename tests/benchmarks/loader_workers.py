"""The private memory of loader workers: ``python -P .../loader_workers.py ROOT WORKERS SAMPLES`` (ROOT ``-``: no data).

Opens the training split of ROOT, goes through so many samples a worker, and prints two lines: MiB that each worker has
for itself (``Private_Clean`` and ``Private_Dirty`` of ``/proc/PID/smaps_rollup``) when it has loaded its first batches
and at the end. With ``-`` the workers give tensors of the same size that need no data: what torch itself takes.

Run as a file it measures whichever dsctool can be imported, and so it imports nothing of these tests.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import find_split
from dsctool.data.loader import TrainLoader

BATCH = 4
PREFETCHED = 2
"""Batches that a worker is ahead."""
SHORT, LONG = 96, 128


class Nothing(Dataset[torch.Tensor]):
    """Pictures without data."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3, SHORT, LONG), float(index))


@contextmanager
def batches(root: str, workers: int) -> Iterator[tuple[int, Iterable[object]]]:
    """How many batches an epoch has, and the batches."""
    if root == "-":
        loader = DataLoader(Nothing(), batch_size=BATCH, num_workers=workers)
        yield len(loader), loader
        return
    resize = ResizeConfig(short_sides=(SHORT,), long_side=LONG)
    config = DataConfig(workers=workers, keep_empty=False, train_resize=resize)
    dataset = CocoDataset.for_training(find_split(Path(root), config.train, "train"), config)
    with TrainLoader(dataset, config, batch_size=BATCH, seed=0, epochs=1) as loads:
        yield len(loads), loads.epoch(0)


def private() -> list[float]:
    """MiB of each worker."""
    return sorted(_private(process.pid) for process in multiprocessing.active_children())


def _private(pid: int | None) -> float:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(size) for name, size, _ in lines if name in ("Private_Clean:", "Private_Dirty:")) / 1024


def main(root: str, workers: int, samples: int) -> None:
    """Measure and print; in a small set, before its epoch ends and the workers do."""
    with batches(root, workers) as (length, loader):
        count = min(workers * samples // BATCH, length - workers * PREFETCHED - 1)
        for number, _ in enumerate(islice(loader, count), start=1):
            if number in (1, count):
                print(*(f"{size:.1f}" for size in private()))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
