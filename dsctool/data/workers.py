"""The processes that load data: what each of them is at, and which were lost."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

_CAUSES = {
    "SIGKILL": ", as the system does when memory runs out",
    "SIGBUS": ", as the system does when /dev/shm is full (docker run --shm-size gives a container more)",
}


class Lost(NamedTuple):
    """A process that ended before its time.

    exitcode: as Python has it, ``-9`` for SIGKILL. indices: of the images in the batch that it was given last.
    """

    exitcode: int
    indices: list[int]

    @property
    def cause(self) -> str:
        """What ended it, in words."""
        if self.exitcode > 0:
            return f"ended with exit code {self.exitcode}"
        name = signal.Signals(-self.exitcode).name
        return f"was killed ({name}{_CAUSES.get(name, '')})"


class Crew:
    """Loader processes that write down, in memory they share with the main process, which batch they were given.

    size: how many there are. batch_size: images in a batch, at most.
    """

    def __init__(self, *, size: int, batch_size: int) -> None:
        self._notes = torch.zeros(size, 2 + batch_size, dtype=torch.int64).share_memory_()
        """By process: its id, the images in its batch, and their indices."""
        self._processes: list[BaseProcess] = []

    def enter(self, worker: int) -> None:
        """What a process does first. Interruptions it leaves to the main process, which ends it when it is done."""
        self._notes[worker, 0] = os.getpid()
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):  # SIGUSR1 is not on Windows
                signal.signal(getattr(signal, name), signal.SIG_IGN)

    def note(self, indices: Sequence[int]) -> None:
        """What a process does before it loads a batch; in the main process nothing happens."""
        if (worker := get_worker_info()) is not None:
            self._notes[worker.id, 1] = len(indices)
            self._notes[worker.id, 2 : 2 + len(indices)] = torch.tensor(indices)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Processes that start in the block are the crew.

        torch has SIGCHLD raise wherever the program is when one of them is lost, and in the middle of an optimiser
        step a run cannot be saved. Its handler goes: the loss is noticed when the next batch is waited for.
        """
        before, handler = active_children(), _child_handler()
        yield
        self._processes = [process for process in active_children() if process not in before]
        atexit.register(self.dismiss)  # before Python sends SIGTERM to those that are left, and waits for them
        if _child_handler() is not handler:
            signal.signal(signal.SIGCHLD, handler)

    def lost(self) -> Lost | None:
        """The first process that was lost; one that is just dying is waited for, a moment."""
        ended = wait([process.sentinel for process in self._processes], timeout=5 if self._processes else 0)
        for process in self._processes:
            if process.sentinel in ended:
                process.join(timeout=5)  # a sentinel speaks a moment before there is an exit code
            if process.exitcode:
                rows = self._notes[self._notes[:, 0] == process.pid].tolist()
                return Lost(process.exitcode, [index for _, count, *indices in rows for index in indices[:count]])
        return None

    def indices(self) -> list[int]:
        """Of the images in the batches that the processes were given last."""
        return [index for _, count, *indices in self._notes.tolist() for index in indices[:count]]

    def dismiss(self) -> None:
        """End those that did not end when they were asked to: they heed no SIGTERM."""
        atexit.unregister(self.dismiss)
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join()


def _child_handler() -> Any:
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None  # it is not on Windows
