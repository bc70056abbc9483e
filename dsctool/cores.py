"""Large work: on all cores, in processes that see the arrays of this one, and without collecting garbage."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

Result = TypeVar("Result")

_ENOUGH = 2_000  # things to do, below which processes cost more than they save
_work: Callable[[slice], Any]


def on_all_cores(work: Callable[[slice], Result], count: int) -> list[Result]:
    """``work`` of slices of ``count`` things, in order; it must only read, and give something that can be pickled.

    In forked processes where that is safe and worth it: on Linux, in a process without threads, which torch has. Else
    in this one.
    """
    global _work
    processes = min(_cores(), count // _ENOUGH)
    alone = threading.active_count() == 1 and "torch" not in sys.modules and sys.platform == "linux"
    if processes < 2 or not alone or multiprocessing.current_process().daemon:
        return [work(slice(0, count))]
    edges = [count * number // (4 * processes) for number in range(4 * processes + 1)]
    parts = [slice(first, last) for first, last in pairwise(edges)]
    _work = work
    try:
        # Collecting garbage would copy the pages of all objects that are shared with this process.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), initializer=gc.disable) as pool:
            return list(pool.map(_part, parts))
    except (BrokenProcessPool, OSError):  # killed, perhaps for memory, or never begun: alone it takes less
        return [work(slice(0, count))]
    finally:
        del _work


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


def _part(part: slice) -> Any:
    return _work(part)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
