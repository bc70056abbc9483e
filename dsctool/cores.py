"""Large work: on all cores, in processes that see the arrays of this one, and without collecting garbage."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")

_ENOUGH = 2_000
_work: Callable[[slice], Any]
_forked = False


def on_all_cores(work: Callable[[slice], Result], count: int, *, worth: int | None = None) -> list[Result]:
    """``work`` of slices of ``count`` things, in order; it must only read (and write into :func:`shared_bytes`), and
    give something that can be pickled.

    In forked processes where that is safe and worth it: on Linux, in a process without threads, which torch has. Else
    in this one. worth: for how many things a further process pays.
    """
    global _work
    processes = min(_cores(), count // (worth or _ENOUGH))
    if processes < 2 or not _can_fork():
        return [work(slice(0, count))]
    edges = [count * number // (4 * processes) for number in range(4 * processes + 1)]
    parts = [slice(first, last) for first, last in pairwise(edges) if first < last]
    _work = work
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=_begin) as pool:
            return list(pool.map(_part, parts))
    except (BrokenProcessPool, OSError):  # killed, perhaps for memory, or never begun: alone it takes less
        return [work(slice(0, count))]
    finally:
        del _work


class Later(Generic[Result]):
    """What :func:`beside` works out."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._process: multiprocessing.process.BaseProcess | None = None
        if _cores() > 1 and _can_fork():
            context = multiprocessing.get_context("fork")
            self._answer, answer = context.Pipe(duplex=False)
            self._process = context.Process(target=_send, args=(work, answer), daemon=True)
            self._process.start()
            answer.close()

    def result(self) -> Result:
        """Wait for it; raises what ``work`` raised."""
        if self._process is None:
            return self._work()
        try:
            value, error = self._answer.recv()
        except (EOFError, OSError):  # it was killed
            return self._work()
        self._process.join()
        if error is not None:
            raise error
        found: Result = value
        return found


def beside(work: Callable[[], Result]) -> Later[Result]:
    """Begin ``work`` in a forked process, under the conditions of :func:`on_all_cores`; else it is done when asked for.

    Ask once.
    """
    return Later(work)


def _begin() -> None:
    """In a forked process, which shares out nothing further."""
    global _forked
    _forked = True
    gc.disable()  # it would copy the pages of all objects that are shared with the other process


def _send(work: Callable[[], Any], answer: Connection) -> None:
    _begin()
    found: tuple[Any, Exception | None]
    try:
        found = work(), None
    except Exception as error:
        found = None, error
    with suppress(BrokenPipeError):  # nobody asks any more
        answer.send(found)


def shared_bytes(count: int) -> NDArray[np.uint8]:
    """Room into which the processes of :func:`on_all_cores` write for this one; what is not used takes no memory."""
    return np.frombuffer(mmap.mmap(-1, max(count, 1)), dtype=np.uint8)


@contextmanager
def without_collection() -> Iterator[None]:
    """No search for garbage in cycles: where many objects live for a moment and none is in a cycle, it is wasted."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _can_fork() -> bool:
    alone = threading.active_count() == 1 and "torch" not in sys.modules and not _forked
    return alone and sys.platform == "linux" and not multiprocessing.current_process().daemon


def _part(part: slice) -> Any:
    return _work(part)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
