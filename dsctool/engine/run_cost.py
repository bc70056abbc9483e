"""What whole runs cost, from a few steps of each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from dsctool.config.schema import Config
from dsctool.engine.dryrun import take_steps
from dsctool.engine.environment import pick_device
from dsctool.engine.memory import available_bytes, within
from dsctool.engine.setup import prepare
from dsctool.errors import DsctoolError


@dataclass(frozen=True)
class RunCost:
    """steps: optimiser steps of the run. epoch: of them in an epoch. step_time: of a warm one, in seconds."""

    steps: int
    epoch: int
    step_time: float

    @property
    def seconds(self) -> float:
        """Of all steps; evaluations come on top."""
        return self.steps * self.step_time

    def shortened(self, config: Config) -> float:
        """Seconds of a run whose configuration differs in its length alone."""
        train = config.train
        return self.step_time * (train.steps if train.steps is not None else train.epochs * self.epoch)


def run_cost(config: Config, data: Path, device: str, threads: int | None = None) -> RunCost:
    """Set a run up and train a few steps that nothing keeps; raises what training raises.

    threads: of the CPU; None: torch's own number.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place = pick_device(device)
    with within(available_bytes(place), place):
        setup = prepare(config, data=data, device=place)
        return RunCost(setup.steps, setup.steps_per_epoch, take_steps(setup).step_time)


def run_costs(
    configs: Mapping[str, Config], data: Path, devices: Sequence[str], threads: int | None = None
) -> Iterator[RunCost]:
    """:func:`run_cost` of several, in order; as many at once as there are devices, each in a process of its own.

    configs: by names, with which errors begin.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(devices), mp_context=context, max_tasks_per_child=1) as pool:
        places = [devices[number % len(devices)] for number in range(len(configs))]
        tasks = [
            pool.submit(run_cost, config, data, place, threads)
            for config, place in zip(configs.values(), places, strict=True)
        ]
        for name, task in zip(configs, tasks, strict=True):
            try:
                yield task.result()
            except DsctoolError as error:
                raise type(error)(f"{name}: {error}") from error
