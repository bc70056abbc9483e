"""What would make a run fit into less memory: tried, not estimated."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dsctool.config.loading import override_config
from dsctool.config.schema import PARTS, Config
from dsctool.engine.dryrun import STEPS, Cost, measure
from dsctool.errors import OutOfMemoryError

SMALLER = 0.75
"""Sides of training images, of what they are."""
MASKS_AT_ONCE = 64
"""RoIs: what lies before their logits takes 50 MB at the published sizes."""
Measure = Callable[[Config, Path, str], Cost]


@dataclass(frozen=True)
class Saving:
    """A change of the configuration, as words ``key=value``, and its cost; None where it had too little memory."""

    words: tuple[str, ...]
    cost: Cost | None


def savings(config: Config) -> list[tuple[str, ...]]:
    """Changes that take less memory, each by itself: those that keep what is learnt first, and all together last."""
    train, resize = config.train, config.data.train_resize
    options: list[tuple[str, ...]] = []
    if set(train.checkpointed_parts) != set(PARTS):
        options.append(("train.checkpoint_activations=true",))
    if train.masks_at_once is None and config.model.cascade.mask_head is not None:
        options.append((f"train.masks_at_once={MASKS_AT_ONCE}",))
    if train.batch_size > 1:
        share = 2 if train.batch_size % 2 == 0 else train.batch_size
        options.append(
            (f"train.batch_size={train.batch_size // share}", f"train.accumulate={train.accumulate * share}")
        )
    if train.precision == "float32":
        options.append(("train.precision=bfloat16",))
    sides = ", ".join(str(round(SMALLER * side)) for side in resize.short_sides)
    options.append(
        (f"data.train_resize.short_sides=[{sides}]", f"data.train_resize.long_side={round(SMALLER * resize.long_side)}")
    )
    return [*options, tuple(word for option in options for word in option)] if len(options) > 1 else options


def alone(config: Config, data: Path, device: str, *, steps: int = STEPS) -> Cost:
    """:func:`dsctool.engine.dryrun.measure` in a process of its own, whose peak is nobody else's.

    steps: to train at most.

    Raises OutOfMemoryError also where the system killed that process.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(measure, config, data, device, steps=steps).result()
        except BrokenProcessPool as error:
            raise OutOfMemoryError("the process that tried it was killed") from error


def try_savings(
    config: Config,
    options: Sequence[tuple[str, ...]],
    *,
    data: Path,
    device: str,
    measure: Measure = alone,
) -> Iterator[Saving]:
    """The cost of ``config`` with each of the changes; raises what ``measure`` raises, except for memory."""
    for words in options:
        try:
            cost: Cost | None = measure(override_config(config, words), data, device)
        except OutOfMemoryError:
            cost = None
        yield Saving(words, cost)
