"""Batches of a data set, from worker processes.

The order of training batches and the augmentation in them depend on seed and epoch only: not on the number
of workers, not on what ran before, not on the batch an interrupted run starts again from.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from dsctool.config.schema import DataConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.samplers import ALONE, EpochSteps, Ranks, SampleKey, count_steps
from dsctool.data.transforms import Batch, Sample, collate
from dsctool.data.workers import Crew, Lost
from dsctool.errors import DataError, DsctoolError, WorkerError, memory_for

_LESS = (
    "Lower data.workers, train.batch_size or the size that images are brought to (data.train_resize, "
    "data.jitter.size, data.test_resize), or use windows of large images (data.tiles)."
)


class BatchLoader(Iterable[Batch]):
    """Loads batches; every iteration has worker processes of its own, which end with it.

    Faults in the data and a lack of memory are raised as they were written where a worker met them, without the
    traceback that a worker's exceptions usually bring. A worker that is lost is a WorkerError.

    batches: the samples of each, by index, or by a key that also fixes the augmentation.
    batch_size: images in a batch, at most.
    pin_memory: for batches that go to a GPU, so that the copy need not be waited for.
    timeout: seconds that a batch of a worker may take; it is a WorkerError then. 0: as long as it likes.
    least: no side of the canvas is shorter, in pixels.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        config: DataConfig,
        *,
        batches: Iterable[Sequence[int | SampleKey]],
        batch_size: int,
        pin_memory: bool = False,
        timeout: float = 0,
        least: int = 0,
    ) -> None:
        self._dataset = dataset
        self._config = config
        self._batches = batches
        self._batch_size = batch_size
        self._pin_memory = pin_memory
        self._timeout = timeout
        self._least = least

    def __iter__(self) -> Generator[Batch, None, None]:
        crew = Crew(size=self._config.workers, batch_size=self._batch_size)
        loader: DataLoader[Any] = DataLoader(
            _Loading(self._dataset, partial(collate, pad_divisor=self._config.pad_divisor, least=self._least), crew),
            batch_sampler=self._batches,  # type: ignore[arg-type]
            num_workers=self._config.workers,
            collate_fn=_as_it_is,
            worker_init_fn=crew.enter,
            generator=torch.Generator(),  # else the loader draws from the global one
            pin_memory=self._pin_memory,
            timeout=self._timeout if self._config.workers else 0,
        )
        with crew.starting():
            iterator = iter(loader)
        try:
            while (batch := self._next(iterator, crew)) is not None:
                if isinstance(batch, DsctoolError):
                    raise batch
                images, targets, infos = batch  # a list, where its memory is pinned
                yield images, targets, infos
        finally:
            del iterator  # and with it its processes
            crew.dismiss()

    def _next(self, iterator: Iterator[Any], crew: Crew) -> Any:
        try:
            return next(iterator, None)
        except (RuntimeError, OSError, EOFError) as error:  # the last two where a batch comes from one that is gone
            lost = crew.lost()
            if lost is None and "timed out" not in str(error):
                raise
        raise WorkerError(self._hang(crew) if lost is None else self._words(lost))

    def _hang(self, crew: Crew) -> str:
        at = _named(self._dataset, crew.indices())
        return (
            f"no batch came from the loader processes in {self._timeout:g} seconds; they are at {at}. "
            "Is the disk slow, or a file on a drive that does not answer? train.timeout gives them longer."
        )

    def _words(self, lost: Lost) -> str:
        at = f"while it loaded {_named(self._dataset, lost.indices)}" if lost.indices else "before it loaded anything"
        return f"a loader process {lost.cause}, {at}. {_LESS}"


class _Loading(Dataset[Any]):
    """Whole batches of a data set, or the error that kept one from being loaded."""

    def __init__(self, dataset: CocoDataset, together: Callable[[list[Sample]], Batch], crew: Crew) -> None:
        self.dataset = dataset
        self.together = together
        self.crew = crew

    def __getitems__(self, keys: Sequence[int | SampleKey]) -> Batch | DsctoolError:
        indices = [key if isinstance(key, int) else key.index for key in keys]
        self.crew.note(indices)
        try:
            with memory_for(f"loading {_named(self.dataset, indices)}", remedy=_LESS):
                return self.together([self.dataset[key] for key in keys])
        except DsctoolError as error:
            return error


class TrainLoader:
    """The training batches of a run, step by step, a function of seed, epoch and position: see :class:`EpochSteps`.

    Every image comes once an epoch, or as often as the data set says; the last step (of each orientation, with
    ``group_by_aspect``) may be smaller.
    Worker processes live from the first batch to the end of the run's last epoch, and load ahead over the end of an
    epoch, while the run evaluates. As a context manager the loader ends them at the end of the block.

    batch_size, accumulate: images per batch, and batches per step, of a process. epochs: of the run. ranks: the process
    that gets the batches. pin_memory, timeout: as for :class:`BatchLoader`.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        config: DataConfig,
        *,
        batch_size: int,
        seed: int,
        epochs: int,
        accumulate: int = 1,
        ranks: Ranks = ALONE,
        pin_memory: bool = False,
        timeout: float = 0,
    ) -> None:
        groups = _groups(dataset, config)
        repeats = dataset.repeats
        self.steps_of = partial(count_steps, groups, repeats=repeats)
        self._length = self.steps_of(batch_size * accumulate * ranks.world)
        if not self._length:
            raise DataError(f"{dataset.files.weights}: its weights leave no image to train on")
        self._epochs = epochs
        self._order = partial(
            EpochSteps, groups, batch_size=batch_size, accumulate=accumulate, seed=seed, ranks=ranks, repeats=repeats
        )
        self._loader = partial(
            BatchLoader,
            dataset,
            config,
            batch_size=batch_size,
            pin_memory=pin_memory,
            timeout=timeout,
            least=config.train_canvas,
        )
        self._stream: Generator[Batch, None, None] | None = None
        self._at: tuple[int, int] | None = None
        """The epoch and the step that the stream gives next."""

    def __len__(self) -> int:
        """Optimiser steps in an epoch."""
        return self._length

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; the next batch that is asked for starts others."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._at = None

    def epoch(self, number: int, *, start: int = 0) -> Iterator[list[Batch]]:
        """The batches of each step of an epoch from the ``start``-th on; raises what :class:`BatchLoader` raises."""
        for step, batches in enumerate(self._order(epoch=number, start_step=start).batches, start):
            if self._stream is None or self._at != (number, step):
                self.close()
                self._stream = iter(self._loader(batches=self._keys(number, step)))
            self._at = None  # unless they come
            loaded = [next(self._stream) for _ in range(batches)]
            self._at = (number, step + 1) if step + 1 < len(self) else (number + 1, 0)
            if self._at[0] >= self._epochs:
                self.close()
            yield loaded

    def _keys(self, epoch: int, start: int) -> Iterator[list[SampleKey]]:
        """Of all batches from a step on, to the end of the run."""
        for number in range(epoch, max(self._epochs, epoch + 1)):
            yield from chain.from_iterable(self._order(epoch=number, start_step=start if number == epoch else 0))


def eval_loader(
    dataset: CocoDataset, config: DataConfig, *, ranks: Ranks = ALONE, pin_memory: bool = False, timeout: float = 0
) -> BatchLoader:
    """All images, one by one in the order of the data set; of several processes each has every so manieth.

    pin_memory, timeout: as for :class:`BatchLoader`.
    """
    batches = [[index] for index in range(ranks.rank, len(dataset), ranks.world)]
    return BatchLoader(dataset, config, batches=batches, batch_size=1, pin_memory=pin_memory, timeout=timeout)


def _groups(dataset: CocoDataset, config: DataConfig) -> list[int]:
    """0 or 1 per image: images of one number may share a batch."""
    if not config.group_by_aspect or config.train_canvas:
        return [0] * len(dataset)
    return [int(landscape) for landscape in dataset.landscape]


def _named(dataset: CocoDataset, indices: Sequence[int]) -> str:
    infos = [dataset.image_info(index) for index in indices]
    return ", ".join(f"image {info.id} ({info.file_name}, {info.width} x {info.height})" for info in infos)


def _as_it_is(batch: Any) -> Any:
    return batch
