"""The processes that run one command together: who is who, and what they tell each other.

``torchrun`` starts them and says in the environment which one each is. The first one reads and writes for all; tensors
go by the device's own backend (NCCL on GPUs), everything else by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dsctool.data.samplers import ALONE, Ranks
from dsctool.engine.environment import pick_device
from dsctool.engine.signals import StopRequestedError
from dsctool.errors import ConfigError, DsctoolError, ProcessLostError, SaidElsewhereError
from dsctool.models.losses import Mean, values
from dsctool.models.roi.fusion import RoiBatchNorm

T = TypeVar("T")

TIMEOUT = 1800.0
"""Seconds that a process waits for what another one does for all, such as checking the data."""
_STOP = "stop"


@dataclass(frozen=True)
class Processes:
    """Those that run a command together, as one of them sees them. Alone, it does what it is told and says nothing.

    ranks: which one this is. talk: the group for small messages. store: where one leaves word for the others.
    """

    ranks: Ranks = ALONE
    talk: dist.ProcessGroup | None = None
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that reads, writes and shows for all."""
        return self.ranks.rank == 0

    def on_first(self, work: Callable[[], T], *, send: Callable[[T], T] = lambda value: value) -> T:
        """What ``work`` gives in the first process, in all of them; where it fails, all end.

        send: makes of it what the others get.
        """
        if self.talk is None:
            return work()
        told: list[Any] = [None]
        with self.together():
            if self.first:
                value = work()
                told = [send(value)]
        dist.broadcast_object_list(told, src=0, group=self.talk)
        return value if self.first else told[0]

    @contextmanager
    def together(self, kinds: tuple[type[Exception], ...] = (DsctoolError, StopRequestedError)) -> Iterator[None]:
        """What ends the block in one process ends it in all, which must not wait for each other inside of it.

        What one of them has to say is the first process's to say: in the others it is a SaidElsewhereError. A stop that
        was asked for stays one.

        kinds: of errors, those that count most first. Others end this process alone, and then those that wait for it.
        """
        if self.talk is None:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except kinds as caught:
            error = caught
        if not self.most(int(error is not None)):
            return
        told: list[Any] = [None] * self.ranks.world
        own = next((number for number, kind in enumerate(kinds) if isinstance(error, kind)), None)
        dist.all_gather_object(told, None if own is None else (own, self.ranks.rank, str(error)), group=self.talk)
        number, rank, text = min(each for each in told if each is not None)
        if kinds[number] is StopRequestedError:
            raise StopRequestedError(text) from error
        if not self.first:
            raise SaidElsewhereError(text) from error
        if error is not None and rank == self.ranks.rank:
            raise error
        raise kinds[number](f"process {rank + 1} of {self.ranks.world}: {text}") from error

    def most(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        if self.talk is None:
            return number
        told = torch.tensor([number])
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.talk)
        return int(told)

    def all(self, value: bool) -> bool:
        """Whether it is so in all processes."""
        return not self.most(int(not value))

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Raises ProcessLostError where another process is gone, or does not answer, in the block."""
        try:
            yield
        except RuntimeError as error:
            if self.talk is None or not _is_loss(error):
                raise
            which = f"process {self.ranks.rank + 1} of {self.ranks.world}"
            raise ProcessLostError(f"{which}: another process was lost, or does not answer.") from error

    def gather(self, value: T) -> list[T] | None:
        """What every process has, in the first one; None in the others."""
        if self.talk is None:
            return [value]
        told: list[Any] | None = [None] * self.ranks.world if self.first else None
        dist.gather_object(value, told, group=self.talk)
        return told

    def in_turns(self, own: Iterator[T], count: int) -> Iterator[T]:
        """What the iterators of all processes give, in turns and as it comes, in the first one; nothing in the others.

        count: how many there are at most, of all together, shared out evenly.
        """
        if self.talk is None:
            yield from own
            return
        for _ in range(-(-count // self.ranks.world)):
            with self.together():
                value = next(own, None)
            for each in self.gather(value) or []:
                if each is not None:
                    yield each

    def call_stop(self, name: str) -> None:
        """Leave word that a signal of this name came, for processes that are in the middle of something."""
        if self.store is not None:
            self.store.set(_STOP, name)

    def called_stop(self) -> str | None:
        """The signal that another process left word of."""
        if self.store is not None and self.store.check([_STOP]):
            return self.store.get(_STOP).decode()
        return None

    # --- models -------------------------------------------------------------------------------------

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, as a step calls it: with the weights of the first process, and the mean of all gradients."""
        if self.talk is None:
            return model
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def share_statistics(self, model: nn.Module) -> None:
        """Have the batch norms over RoIs in ``model`` take their statistics over the RoIs of all processes."""
        if self.talk is None:
            return
        group = _group()  # of their own, so that nothing gets between them and the gradients
        for module in model.modules():
            if isinstance(module, RoiBatchNorm):
                module.group = group

    def align_buffers(self, model: nn.Module) -> None:
        """Give all processes the statistics that the first one has, before they measure."""
        if self.talk is not None:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def divided(self, losses: Mapping[str, Mean]) -> dict[str, torch.Tensor]:
        """The losses, by what all processes count together: their mean over the processes is that of one process."""
        if self.talk is None:
            return values(losses)
        device = next(iter(losses.values())).total.device
        counts = torch.stack([torch.as_tensor(loss.count, dtype=torch.float64).to(device) for loss in losses.values()])
        dist.all_reduce(counts)
        shares = (counts.clamp(min=1) / self.ranks.world).float()
        return {name: loss.total / share for (name, loss), share in zip(losses.items(), shares, strict=True)}


LONE = Processes()
"""A command in one process."""


@contextmanager
def joined(device: str, *, timeout: float = TIMEOUT) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that were started with this one, while the block runs, and this one's device.

    device: as ``--device`` has it; GPUs are dealt out by ``LOCAL_RANK``. timeout: seconds that one waits for another.

    Raises:
        ConfigError: the environment names other processes, but not how to reach them; or there are too few GPUs.
        ProcessLostError: another process was lost in the block.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield LONE, pick_device(device)
        return
    chosen = _own_device(device)
    try:
        store, rank, world = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE is {world}, but {error}: start the processes with torchrun.") from error
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    patience = timedelta(seconds=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    talk = _group(backend="gloo", timeout=patience)
    processes = Processes(Ranks(rank, world), talk, store)
    with processes.noticing():
        yield processes, chosen
    dist.destroy_process_group()  # not after an error: others may wait for what will not come


def restarted() -> bool:
    """Whether torchrun has started these processes anew because one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _group(backend: str | None = None, timeout: timedelta | None = None) -> dist.ProcessGroup:
    """A group of all processes."""
    group = dist.new_group(backend=backend, timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _own_device(name: str) -> torch.device:
    """The device of this process among those on its machine."""
    device = pick_device(name)
    if device.type != "cuda":
        return device
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.index not in (None, local):
        raise ConfigError(f"--device {name}: with several processes each has a GPU of its own; say cuda, or nothing.")
    if local >= count:
        raise ConfigError(f"process {local + 1} of this machine has no GPU: there are {count}. Lower --nproc-per-node.")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _is_loss(error: RuntimeError) -> bool:
    """Whether the error is that another process is gone, or does not answer."""
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("Connection closed by peer", "Connection reset", "Timed out waiting", "gloo")
    )
