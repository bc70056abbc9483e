"""What a benchmark runs: a detector, and one inference or one training step of it on given pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config, DataConfig
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.bands import RGB, Channels, rgb
from dsctool.data.coco import CocoDataset
from dsctool.data.images import image_size, read_image
from dsctool.data.synthetic.dataset import synthesize
from dsctool.data.synthetic.scenes import draw_scene
from dsctool.data.tiles import fits, tiles_of
from dsctool.data.transforms import Batch, SampleInfo, collate, inference_transform, pad_images
from dsctool.data.windows import Part, Windows, open_windows
from dsctool.engine.benchmark.stages import Stages, told_apart
from dsctool.engine.inference import Runnable, detections, device_of, load_runnable, to_results
from dsctool.engine.optim import build_optimizer
from dsctool.engine.sets import open_data
from dsctool.engine.step import optimizer_step
from dsctool.engine.tiles import Tiling
from dsctool.interop.checkpoint import load_checkpoint
from dsctool.interop.exported import is_exported, load_exported
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.ops.spans import Window
from dsctool.terms import Size

PICTURE_SIZE = (480, 640)
"""Height and width of the picture that is drawn where none is given: the most frequent size in COCO."""


class Subject(Protocol):
    """Something that is measured."""

    @property
    def windows(self) -> float | None:
        """Of a picture that it looks at by tiles, on average; None: it never does."""

    def __call__(self, stages: Stages[Any]) -> int:
        """Run once, told apart by ``stages``; how many instances there were."""


@dataclass(frozen=True)
class Named:
    """A model on the command line. A shipped configuration or a YAML file has random weights, other files their own.

    title: that it is measured under, where one checkpoint is measured several times; empty: its name.
    """

    name: str
    overrides: tuple[str, ...]
    title: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether it is a checkpoint or an exported file."""
        return Path(self.name).is_file() and Path(self.name).suffix not in (".yaml", ".yml")

    def build(
        self, device: torch.device, size: Size | None, *, training: bool = False, drawn: bool = False
    ) -> Runnable:
        """The detector on ``device``, in eval mode.

        size: (h, w) that pictures are resized to, within both sides, unless it looks at them by tiles. drawn: it gets
        drawn pictures, of which it takes the three bands in turn for whatever channels it has.

        Random weights have no opinion: there every score counts, so that the masks of a full picture are worked out.
        """
        data = self._config().data
        overrides = [*self.overrides, *(_as_drawn(data) if drawn else ()), *(["train.eval_interval=0"] * training)]
        if size is not None and data.tiles is None:
            overrides += _sizes(size)
        if self.has_weights:
            return load_runnable(self.name, overrides=overrides, device=device)
        model = build_detector(load_config(self.name, overrides))
        model.postprocess = replace(model.postprocess, score_threshold=0.0)
        return model.eval().to(device)

    def _config(self) -> Config:
        if is_exported(self.name):
            return load_exported(self.name, overrides=self.overrides).config
        if self.has_weights:
            return override_config(load_checkpoint(self.name).config, self.overrides, source=self.name)
        return load_config(self.name, self.overrides)


def _sizes(size: Size) -> list[str]:
    keys = ("data.test_resize", "data.train_resize")
    return [f"{key}={{short_sides: [{min(size)}], long_side: {max(size)}}}" for key in keys]


def _as_drawn(data: DataConfig) -> list[str]:
    """How a file of red, green and blue of 8 bits becomes the channels."""
    count = len(data.mean)
    bands = "null" if count in (1, 3) else str([1 + channel % 3 for channel in range(count)])
    span = ["data.image_range=[0, 255]"] if isinstance(data.image_range, tuple) else []
    return [f"data.channels={bands}", "data.page=null", *span]


@dataclass(frozen=True)
class Inference:
    """From image files to COCO results, ``batch`` pictures at a time; by tiles one by one."""

    model: Runnable
    files: Sequence[Path]
    batch: int

    @property
    def windows(self) -> float | None:
        """As :class:`Subject`."""
        tiles = self.model.config.data.tiles
        if tiles is None:
            return None
        return sum(len(tiles_of(image_size(file), tiles)) for file in self.files) / len(self.files)

    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        count, tiles = 0, self.model.config.data.tiles
        with told_apart(self.model, stages):
            if tiles is not None:
                for file in self.files:
                    if fits(image_size(file), tiles):
                        count += self._infer([file], stages)
                    else:
                        count += self._by_tiles(file, tiles, stages)
                return count
            for start in range(0, len(self.files), self.batch):
                count += self._infer(self.files[start : start + self.batch], stages)
        return count

    def _by_tiles(self, file: Path, tiles: TilesConfig, stages: Stages[Any]) -> int:
        config = self.model.config.data
        with ExitStack() as stack:
            with stages.stage("decode"):
                windows = stack.enter_context(open_windows(file, channels=Channels.of(config)))
            tiling = Tiling(self.model, config, tiles, device_of(self.model))
            with stages.stage("resize, paste, stitch"):
                found = tiling.detect(_Decoding(windows, stages), file.name)
            with stages.stage("encode"):
                return len(to_results(found, 0, self.model.categories))

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


class _Decoding:
    """Windows whose reading is a stage."""

    def __init__(self, windows: Windows, stages: Stages[Any]) -> None:
        self.size, self._windows, self._stages = windows.size, windows, stages

    def read(self, window: Window) -> Part:
        """What is there."""
        with self._stages.stage("decode"):
            return self._windows.read(window)


class Training:
    """Optimiser steps with a learning rate of 0, so that every one does the same work, ``batch`` images at a time."""

    def __init__(self, model: Detector, dataset: CocoDataset, *, pictures: int, batch: int) -> None:
        self.model, self.dataset, self.batch = model.train(), dataset, batch
        self.indices = [index % len(dataset) for index in range(pictures)]
        self.optimizer = build_optimizer(model, model.config.optim)

    @property
    def windows(self) -> float | None:
        """As :class:`Subject`; training takes one."""
        return None if self.model.config.data.tiles is None else 1.0

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
    """Inference of torchvision's Mask R-CNN R-50, with random weights: a measure that others know.

    channels: how the files are read; of these the first three are seen.
    """

    model: nn.Module
    files: Sequence[Path]
    channels: Channels = RGB
    windows: float | None = None

    @torch.no_grad()
    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        count = 0
        for file in self.files:
            with stages.stage("decode"):
                picture = rgb(read_image(file, channels=self.channels))
            with stages.stage("all of it"):
                count += len(self.model.eval()([picture.to(device_of(self.model)) / 255])[0]["boxes"])
        return count


@dataclass(frozen=True)
class YardstickTraining:
    """Training of the same, forward and backward, on the samples of another model."""

    model: nn.Module
    like: Training
    windows: float | None = None

    def __call__(self, stages: Stages[Any]) -> int:
        """As :class:`Subject`."""
        device, count = device_of(self.model), 0
        for images, targets, _ in self.like.batches(stages):
            truth = [
                {"boxes": t.boxes.to(device), "labels": t.labels.to(device) + 1, "masks": t.masks.to(device)}
                for t in targets
                if t.masks is not None
            ]
            pictures = [rgb(image) for image in images.tensor.to(device)]
            with stages.stage("all of it"):
                self.model.zero_grad()
                torch.stack(list(self.model.train()(pictures, truth).values())).sum().backward()
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
