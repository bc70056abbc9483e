"""How the images of an optimiser step are shared out: to processes, and to the batches of each."""

from __future__ import annotations

from dataclasses import dataclass

from dsctool.config.schema import Config
from dsctool.interop.checkpoint import Checkpoint


@dataclass(frozen=True)
class Share:
    """batch_size: images per batch of a process. accumulate: batches per step of a process. world: processes."""

    batch_size: int
    accumulate: int
    world: int = 1

    @property
    def images(self) -> int:
        """Of a step: the effective batch."""
        return self.batch_size * self.accumulate * self.world


def share_of(config: Config, checkpoint: Checkpoint | None, world: int) -> tuple[Share, list[str]]:
    """What each of ``world`` processes gets, and what to say about it.

    A run goes on with as many images a step as before, whatever the number of processes, where they can be shared out:
    each process then takes more or fewer batches a step, or smaller ones.
    """
    train = config.train
    share = Share(train.batch_size, train.accumulate, world)
    state = None if checkpoint is None else checkpoint.training
    if state is None or state.images in (None, share.images):
        return share, []
    wanted: int = state.images
    if wanted % world == 0:
        own = wanted // world
        batch_size = max(size for size in range(1, train.batch_size + 1) if own % size == 0)
        return Share(batch_size, own // batch_size, world), []
    return share, [
        f"the run had {wanted} images a step, which {world} processes cannot share: it goes on with {share.images}. "
        "The learning rate follows; in this epoch some images may come twice, or not at all."
    ]
