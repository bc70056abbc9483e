"""What a benchmark runs: a detector, and one inference or one training step of it on given pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from dsctool.config.loading import load_config
from dsctool.data.bands import Channels
from dsctool.data.coco import CocoDataset
from dsctool.data.images import read_image
from dsctool.data.synthetic.dataset import synthesize
from dsctool.data.synthetic.scenes import draw_scene
from dsctool.data.transforms import Batch, SampleInfo, collate, inference_transform, pad_images
from dsctool.engine.benchmark.stages import Stages, told_apart
from dsctool.engine.inference import detections, device_of, to_results
from dsctool.engine.optim import build_optimizer
from dsctool.engine.sets import open_data
from dsctool.engine.step import optimizer_step
from dsctool.interop.checkpoint import load_model
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.terms import Size

PICTURE_SIZE = (480, 640)
"""Height and width of the picture that is drawn where none is given: the most frequent size in COCO."""


class Subject(Protocol):
    """Something that is measured."""

    def __call__(self, stages: Stages[Any]) -> int:
        """Run once, told apart by ``stages``; how many instances there were."""


@dataclass(frozen=True)
class Named:
    """A model on the command line. A shipped configuration or a YAML file has random weights, a checkpoint its own.

    title: that it is measured under, where one checkpoint is measured several times; empty: its name.
    """

    name: str
    overrides: tuple[str, ...]
    title: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether it is a checkpoint."""
        return Path(self.name).is_file() and Path(self.name).suffix not in (".yaml", ".yml")

    def build(self, device: torch.device, size: Size | None, *, training: bool = False) -> Detector:
        """The detector on ``device``, in eval mode; size: (h, w) that pictures are resized to, within both sides.

        Random weights have no opinion: there every score counts, so that the masks of a full picture are worked out.
        """
        overrides = (*self.overrides, *_sizes(size), *(("train.eval_interval=0",) if training else ()))
        if self.has_weights:
            return load_model(self.name, overrides=overrides, device=device)
        model = build_detector(load_config(self.name, list(overrides)))
        model.postprocess = replace(model.postprocess, score_threshold=0.0)
        return model.eval().to(device)


def _sizes(size: Size | None) -> tuple[str, ...]:
    if size is None:
        return ()
    keys = ("data.test_resize", "data.train_resize")
    return tuple(f"{key}={{short_sides: [{min(size)}], long_side: {max(size)}}}" for key in keys)


@dataclass(frozen=True)
class Inference:
    """From image files to COCO results, ``batch`` pictures at a time."""

    model: Detector
    files: Sequence[Path]
    batch: int

    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        count = 0
        with told_apart(self.model, stages):
            for start in range(0, len(self.files), self.batch):
                count += self._infer(self.files[start : start + self.batch], stages)
        return count

    def _infer(self, files: Sequence[Path], stages: Stages[Any]) -> int:
        config = self.model.config.data
        transform = inference_transform(config)
        with stages.stage("decode"):
            pictures = [read_image(file, channels=Channels.of(config)) for file in files]
        with stages.stage("resize"):
            images = pad_images([transform.image(picture) for picture in pictures], config.pad_divisor)
        infos = [
            SampleInfo(number, (picture.shape[-2], picture.shape[-1]), file.name)
            for number, (file, picture) in enumerate(zip(files, pictures, strict=True))
        ]
        with stages.stage("other"):
            found = list(detections(self.model, [(images, [], infos)], device=device_of(self.model)))
        with stages.stage("paste, encode"):
            results = [to_results(each, info.image_id, self.model.categories) for info, each in found]
        return sum(len(each) for each in results)


class Training:
    """Optimiser steps with a learning rate of 0, so that every one does the same work, ``batch`` images at a time."""

    def __init__(self, model: Detector, dataset: CocoDataset, *, pictures: int, batch: int) -> None:
        self.model, self.dataset, self.batch = model.train(), dataset, batch
        self.indices = [index % len(dataset) for index in range(pictures)]
        self.optimizer = build_optimizer(model, model.config.optim)

    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        count = 0
        with told_apart(self.model, stages):
            for batch in self.batches(stages):
                with stages.stage("backward, step"):
                    clip = self.model.config.optim.clip_norm
                    optimizer_step(self.model, self.optimizer, [batch], rate=0.0, max_norm=clip)
                count += sum(len(target.boxes) for target in batch[1])
        return count

    def batches(self, stages: Stages[Any]) -> Iterator[Batch]:
        """All images, ``batch`` at a time."""
        for start in range(0, len(self.indices), self.batch):
            with stages.stage("load"):
                samples = [self.dataset[index] for index in self.indices[start : start + self.batch]]
                data = self.model.config.data
                batch = collate(samples, data.pad_divisor, least=data.train_canvas)
            yield batch


@dataclass(frozen=True)
class Yardstick:
    """Inference of torchvision's Mask R-CNN R-50, with random weights: a measure that others know."""

    model: nn.Module
    files: Sequence[Path]

    @torch.no_grad()
    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        count = 0
        for file in self.files:
            with stages.stage("decode"):
                picture = read_image(file)
            with stages.stage("all of it"):
                count += len(self.model.eval()([picture.to(device_of(self.model)) / 255])[0]["boxes"])
        return count


@dataclass(frozen=True)
class YardstickTraining:
    """Training of the same, forward and backward, on the samples of another model."""

    model: nn.Module
    like: Training

    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        device, count = device_of(self.model), 0
        for images, targets, _ in self.like.batches(stages):
            truth = [
                {"boxes": t.boxes.to(device), "labels": t.labels.to(device) + 1, "masks": t.masks.to(device)}
                for t in targets
                if t.masks is not None
            ]
            with stages.stage("all of it"):
                self.model.zero_grad()
                torch.stack(list(self.model.train()(list(images.tensor.to(device)), truth).values())).sum().backward()
            count += sum(len(target.boxes) for target in targets)
        return count


def mask_rcnn(size: Size, device: torch.device) -> nn.Module:
    """The yardstick's model: 91 classes, 1,000 proposals, every score counts; pictures are resized within ``size``."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model: nn.Module = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=min(size),
        max_size=max(size),
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=1000,
    )
    return model.to(device)


def draw_picture(folder: Path, size: Size | None) -> Path:
    """A JPEG file of a generated scene."""
    scene = draw_scene(np.random.default_rng(0), size or PICTURE_SIZE, huddle=0.5)
    path = folder / "scene.jpg"
    scene.image.save(path, quality=95)
    return path


def training_set(folder: Path, model: Detector, *, pictures: int, size: Size | None, data: Path | None) -> CocoDataset:
    """The training images of ``data``, or generated ones."""
    if data is None:
        data = folder / "scenes"
        if not data.exists():
            synthesize(data, images=pictures, seed=0, size=size or PICTURE_SIZE)
    return open_data(model.config, data).train_set
