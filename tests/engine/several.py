"""Several processes that run one thing together, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

import torch

from dsctool.engine.processes import Processes, joined

Outcome = tuple[str, Any]
"""``("gave", value)``, or the name of an exception's class and its text."""


def several(world: int, work: Callable[[Processes], Any], *, timeout: float = 300) -> list[Outcome]:
    """What ``work`` gives in each of ``world`` processes, by rank; one that was killed gives ``("lost", its code)``."""

    def joining() -> Any:
        with joined("cpu", timeout=60) as (processes, _):
            return work(processes)

    return started_together(world, joining, timeout=timeout)


def started_together(world: int, work: Callable[[], Any], *, timeout: float = 300) -> list[Outcome]:
    """The same of work that joins the others by itself."""
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [context.Process(target=_one, args=(rank, world, port, work, told)) for rank in range(world)]
    for process in started:
        process.start()
    outcomes: dict[int, Outcome] = {}
    while len(outcomes) < world:
        try:
            rank, outcome = told.get(timeout=timeout if _all_live(started, outcomes) else 2)
        except Empty:
            gone = {r: p for r, p in enumerate(started) if r not in outcomes and not p.is_alive()}
            assert gone, "they hang"
            outcomes |= {rank: ("lost", process.exitcode) for rank, process in gone.items()}
        else:
            outcomes[rank] = outcome
    for process in started:
        process.join(timeout=30)
        assert not process.is_alive()
    return [outcomes[rank] for rank in range(world)]


def _all_live(started: list[BaseProcess], outcomes: dict[int, Outcome]) -> bool:
    return all(process.is_alive() for rank, process in enumerate(started) if rank not in outcomes)


def _one(rank: int, world: int, port: int, work: Callable[[], Any], told: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        outcome: Outcome = ("gave", work())
    except Exception as error:  # told to the test, which says what it expects
        outcome = (type(error).__name__, str(error))
    told.put((rank, outcome))
    told.close()
    told.join_thread()
