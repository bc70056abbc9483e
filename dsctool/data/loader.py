"""Batches of a data set, from worker processes.

The order of training batches and the augmentation in them depend on seed and epoch only: not on the number
of workers, not on what ran before, not on the batch an interrupted run starts again from.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from dsctool.config.schema import DataConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.samplers import ALONE, EpochBatches, Ranks, SampleKey, count_batches
from dsctool.data.transforms import Batch, Sample, collate
from dsctool.errors import DataError


class BatchLoader(Iterable[Batch]):
    """Iterates over batches; faulty data raise the :class:`DataError` that the data set gave.

    A worker's exception usually arrives with its traceback as its message; a fault in the data must read
    as it was written, so it travels as a value and is raised here.
    """

    def __init__(self, loader: Iterable[Batch | DataError], length: int, dataset: CocoDataset) -> None:
        self.dataset = dataset
        self._loader = loader
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            images, targets, infos = batch  # a list, where its memory is pinned
            yield images, targets, infos


class _Caught(Dataset[Sample | DataError]):
    """A data set that returns its data errors."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | SampleKey) -> Sample | DataError:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def train_loader(
    dataset: CocoDataset,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    ranks: Ranks = ALONE,
    pin_memory: bool = False,
) -> BatchLoader:
    """The training batches of one epoch from ``start_batch`` on, as :class:`EpochBatches` gives them to a process.

    Every image comes once; the last batch (of each orientation, with ``group_by_aspect``) may be smaller.
    pin_memory: for batches that go to a GPU, so that the copy need not be waited for.
    """
    batches = EpochBatches(
        _groups(dataset, config), batch_size=batch_size, seed=seed, epoch=epoch, start_batch=start_batch, ranks=ranks
    )
    loader: DataLoader[Any] = DataLoader(
        _Caught(dataset),
        batch_sampler=batches,
        num_workers=config.workers,
        collate_fn=partial(_collate, pad_divisor=config.pad_divisor),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else the loader draws from the global one
        pin_memory=pin_memory,
    )
    return BatchLoader(loader, len(loader), dataset)


def eval_loader(dataset: CocoDataset, config: DataConfig, *, pin_memory: bool = False) -> BatchLoader:
    """All images, one by one in the order of the data set; pin_memory: as for :func:`train_loader`."""
    loader: DataLoader[Any] = DataLoader(
        _Caught(dataset),
        sampler=SequentialSampler(dataset),
        num_workers=config.workers,
        collate_fn=partial(_collate, pad_divisor=config.pad_divisor),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )
    return BatchLoader(loader, len(loader), dataset)


def batches_per_epoch(dataset: CocoDataset, config: DataConfig, *, batch_size: int, ranks: Ranks = ALONE) -> int:
    """Batches of :func:`train_loader` in one epoch."""
    return count_batches(_groups(dataset, config), batch_size, world=ranks.world)


def _groups(dataset: CocoDataset, config: DataConfig) -> list[int]:
    """0 or 1 per image: images of one number may share a batch."""
    if not config.group_by_aspect:
        return [0] * len(dataset)
    return [int(landscape) for landscape in dataset.landscape]


def _collate(samples: Sequence[Sample | DataError], pad_divisor: int) -> Batch | DataError:
    good = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    return collate(good, pad_divisor)


def _start_worker(_: int) -> None:
    """Workers leave interruptions to the main process, which ends them when it is done."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # SIGUSR1 is not on Windows
            signal.signal(getattr(signal, name), signal.SIG_IGN)
