"""Which models are measured, on what, and the memory that each takes by itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dsctool.data.bands import Channels
from dsctool.data.image_files import find_images
from dsctool.engine.benchmark.measure import Bench, run_in_turns
from dsctool.engine.benchmark.stages import Stages, WallClock
from dsctool.engine.benchmark.subjects import (
    Inference,
    Named,
    Subject,
    Training,
    Yardstick,
    YardstickTraining,
    draw_picture,
    mask_rcnn,
    training_set,
)
from dsctool.engine.environment import keep_freed_memory, peak_bytes, pick_device
from dsctool.errors import DsctoolError
from dsctool.interop.exported import ExportedDetector
from dsctool.terms import Size

YARDSTICK = "torchvision Mask R-CNN R-50"
YARDSTICK_SIZE = (800, 1333)
"""What it resizes to where no size is given: as published models do."""
MOST_PICTURES = 8
"""Of a folder, unless it is said how many."""


@dataclass(frozen=True)
class Plan:
    """What every model does.

    size: (h, w) that they see pictures in, or that a drawn one has where they look at it by tiles; None: as configured,
    and of a usual size. batch: pictures at once. pictures: in all, None for
    one batch, or up to ``MOST_PICTURES`` of ``images``. train: training steps instead of inference. images: a folder,
    None for a generated picture. data: for training; None for generated scenes. threads: of the CPU, None for torch's
    own number.
    """

    size: Size | None = None
    batch: int = 1
    pictures: int | None = None
    train: bool = False
    images: Path | None = None
    data: Path | None = None
    device: str = "cpu"
    threads: int | None = None

    def subject(self, model: Named, folder: Path) -> tuple[Subject, int]:
        """What is measured of ``model``, and over how many pictures. folder: for what is generated."""
        drawn = (self.data if self.train else self.images) is None
        detector = model.build(pick_device(self.device), self.size, training=self.train, drawn=drawn)
        if self.train:
            if isinstance(detector, ExportedDetector):
                raise DsctoolError(f"{model.name}: is exported, and cannot be trained")
            count = self.pictures or self.batch
            dataset = training_set(folder, detector, pictures=count, size=self.size, data=self.data)
            return Training(detector, dataset, pictures=count, batch=self.batch), count
        files = self.files(folder)
        return Inference(detector, files, self.batch), len(files)

    def files(self, folder: Path) -> list[Path]:
        """The pictures."""
        if self.images is None:
            return [draw_picture(folder, self.size)] * (self.pictures or self.batch)
        return find_images([self.images])[: self.pictures or MOST_PICTURES]


def run(
    models: Sequence[Named],
    plan: Plan,
    *,
    rounds: int,
    yardstick: bool = False,
    progress: Callable[[str, int, int], None] = lambda task, done, of: None,
) -> Bench:
    """Measure ``models`` in turns. yardstick: torchvision's Mask R-CNN first, which the ratios are to."""
    device = pick_device(plan.device)
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    with TemporaryDirectory() as name:
        folder, count = Path(name), 1
        subjects: dict[str, Subject] = {}
        for model in models:
            subjects[model.title or model.name], count = plan.subject(model, folder)
        if yardstick:
            subjects = {YARDSTICK: _yardstick(subjects[models[0].name], plan, device), **subjects}
        return run_in_turns(subjects, device, pictures=count, rounds=rounds, progress=progress)


def _yardstick(first: Subject, plan: Plan, device: torch.device) -> Subject:
    """What does the same as the first model."""
    measure = mask_rcnn(plan.size or YARDSTICK_SIZE, device)
    if isinstance(first, Training):
        return YardstickTraining(measure, first)
    assert isinstance(first, Inference)
    return Yardstick(measure, first.files, Channels.of(first.model.config.data))


def memory(model: Named, plan: Plan) -> int:
    """Bytes at the peak of a process that runs ``model`` once and nothing else; on a GPU, of its tensors there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, model, plan).result()


def _peak(model: Named, plan: Plan) -> int:
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    device = pick_device(plan.device)
    keep_freed_memory(device)
    with TemporaryDirectory() as folder:
        subject, _ = plan.subject(model, Path(folder))
        subject(Stages(WallClock()))
    return peak_bytes(device)
