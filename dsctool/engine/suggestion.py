"""A configuration fitted to a data set: what to set, and why, line by line."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from dsctool.config.limits import RULES
from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import Config
from dsctool.data.anchor_fit import Anchors, fit_anchors, mean_best_iou
from dsctool.data.columns import Reading, has_segmentations, read_columns
from dsctool.data.faults import exclusions
from dsctool.data.layout import SplitFiles, find_split
from dsctool.data.object_sizes import MANY, SMALL, STEP, TILES_WORD, ObjectSizes, Resize, train_resize
from dsctool.data.records import read_annotation_file
from dsctool.data.rules import Needs
from dsctool.data.usage import Usage
from dsctool.engine.dryrun import Cost
from dsctool.engine.environment import pick_device
from dsctool.engine.memory import available_bytes
from dsctool.engine.savings import alone
from dsctool.errors import DataError, OutOfMemoryError

LARGEST_SIDE = 1600
"""Of the shorter side that is proposed, in pixels: beyond, tiles are cheaper."""
ENLARGED = 2
"""Images are not proposed to be enlarged by more: pixels that were never there show nothing."""
LONGEST = 3
"""The longer side that is proposed is at most so many times the shorter one."""
LEAST_STEPS = {"pretrained": 2000, "scratch": 4000}
"""Optimiser steps of a run that is worth something; rules of thumb."""
MOST_EPOCHS = 300
"""More passes over the same few images teach them by heart."""
ROOM = 0.8
"""Share of the memory that is planned with."""
TRIED_STEPS = 2
"""Of each trial: from the second on, the optimiser has what it keeps."""
Measure = Callable[[Config, Path, str], Cost]


@dataclass(frozen=True)
class Line:
    """A value to set, and why."""

    key: str
    value: object
    reason: str

    @property
    def word(self) -> str:
        """As one would type it."""
        return f"{self.key}={json.dumps(self.value)}"


@dataclass(frozen=True)
class Suggestion:
    """base: the configuration that the lines are laid over. about: the data, in a line."""

    base: str
    about: str
    lines: tuple[Line, ...]

    def yaml(self) -> str:
        """A configuration file; reasons are comments."""
        head = f"# Fitted to {self.about}\nbase: {json.dumps(self.base) if ' ' in self.base else self.base}\n"
        return head + "".join(_nested([(line.key.split("."), line) for line in self.lines], depth=0))


def _nested(lines: Sequence[tuple[list[str], Line]], *, depth: int) -> Iterator[str]:
    """The lines of a mapping, keys in the order in which they first come."""
    indent = "  " * depth
    for key in dict.fromkeys(keys[0] for keys, _ in lines):
        own = [(keys[1:], line) for keys, line in lines if keys[0] == key]
        if own[0][0]:
            yield f"{indent}{key}:\n"
            yield from _nested(own, depth=depth + 1)
            continue
        line = own[-1][1]
        width = 116 - len(indent)
        yield from (f"{indent}# {text}\n" for text in textwrap.wrap(line.reason, width, break_on_hyphens=False))
        yield f"{indent}{key}: {json.dumps(line.value)}\n"


def try_steps(config: Config, data: Path, device: str) -> Cost:
    """What a few steps take, in a process of their own."""
    return alone(config, data, device, steps=TRIED_STEPS)


def suggest(
    root: Path,
    base: str | None = None,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    measure: Measure | None = try_steps,
) -> Suggestion:
    """Look at the training split of ``root``, and say what to set.

    base: name or file of the configuration to begin with; None: a tiny one on a CPU, HTC on R-50 on a GPU.
    overrides: what is set already, such as ``data.train.split=NAME``; it becomes part of the result.
    measure: tries batches on ``device``; None: not tried.

    Raises:
        DataError: there is nothing to train on, or the configuration needs masks that are not there.
    """
    place = pick_device(device)
    masks_wanted = base is not None
    name = base or ("htc_tiny" if place.type == "cpu" else "htc_r50_fpn_1x_coco")
    config = load_config(name, overrides)
    files = find_split(root, config.data.train, "train")
    file = read_annotation_file(files.annotations)
    masks = has_segmentations(file)
    if not masks and config.model.cascade.has_masks:
        if masks_wanted:
            raise DataError(
                f"{files.annotations}: has no segmentations, which {name} learns: take a configuration of boxes, such "
                "as cascade_rcnn_r50_fpn_1x_coco, or none"
            )
        name = "cascade_mask_rcnn_tiny" if place.type == "cpu" else "cascade_rcnn_r50_fpn_1x_coco"
        config = load_config(name, overrides)
    reading = read_columns(file, Needs(masks=masks))
    exclusions(reading.faults, "skip")
    usage = Usage.of(reading)
    if usage.reason:
        raise DataError(f"{files.annotations}: has nothing to train on: {usage.reason}")
    builder = _Builder(name, config, root, files, reading, usage)
    builder.given(overrides)
    for part in (builder.classes, builder.faults, builder.sides, builder.anchors, builder.limits, builder.validation):
        builder.add(part())
    builder.add(builder.batch(measure, device, available_bytes(place)))
    builder.add(builder.schedule())
    counts = f"{builder.images} images, {len(builder.sizes)} instances, {len(reading.categories)} classes"
    path = name if not Path(name).is_file() else str(Path(name).resolve())
    return Suggestion(path, f"{files.annotations}: {counts}", tuple(builder.lines))


class _Builder:
    """Collects lines; ``config`` is what they come to so far."""

    def __init__(
        self, name: str, config: Config, root: Path, files: SplitFiles, reading: Reading, usage: Usage
    ) -> None:
        self.name, self.config, self.root, self.files = name, config, root, files
        self.reading, self.usage, self.sizes = reading, usage, ObjectSizes.of(reading)
        self.lines: list[Line] = []
        self.kept: list[str] = []

    @property
    def images(self) -> int:
        """That training has."""
        counts = self.usage.instances
        return len(counts) if self.config.data.keep_empty else int(np.count_nonzero(counts))

    def add(self, lines: Iterator[Line] | Sequence[Line]) -> None:
        """Take lines; each is valid with those before it."""
        found = [line for line in lines if not any(f"{line.key}.".startswith(f"{key}.") for key in self.kept)]
        self.lines += found
        self.config = override_config(self.config, [line.word for line in found], source="the fitted configuration")

    def given(self, overrides: Sequence[str]) -> None:
        """What the user set; ``config`` has it already."""
        for word in overrides:
            key = word.partition("=")[0]
            value: object = self.config.model_dump(mode="json")
            for part in key.split("."):
                value = value[part] if isinstance(value, Mapping) else value
            self.lines.append(Line(key, value, "as asked for"))
            self.kept.append(key)

    def classes(self) -> Iterator[Line]:
        """Classes, masks and the semantic branch."""
        count, model = len(self.reading.categories), self.config.model
        if model.num_classes not in (None, count):
            yield Line(
                "model.num_classes", None, f"as many as the data have, {count}; {self.name} says {model.num_classes}"
            )
        if not self.reading.needs.masks and model.cascade.has_masks:
            yield Line("model.cascade.mask_head", None, "the data have boxes only")
        branch = model.cascade.semantic_branch
        wanted = self.config.data.semantic
        if not self.reading.needs.masks:
            wanted = "none"
        elif wanted == "stuffthingmaps" and self.files.semantic_maps is None:
            wanted = "instances"
        if wanted == "instances" and count > 254:
            wanted = "none"
        if (branch is not None or not self.reading.needs.masks) and wanted != self.config.data.semantic:
            why = {"none": "there is nothing to draw maps from", "instances": "there are no stuff maps"}
            yield Line("data.semantic", wanted, why.get(wanted, ""))
        if branch is not None and wanted == "instances" and branch.num_classes not in (None, count + 1):
            yield Line("model.cascade.semantic.num_classes", None, f"{count} classes and the background")
        empty = int(np.count_nonzero(self.usage.instances == 0))
        if empty and not self.config.data.keep_empty:
            yield Line("data.keep_empty", True, f"the {empty} images without instances show what is none")

    def faults(self) -> Iterator[Line]:
        """Faulty entries."""
        count = sum(fault.severity == "error" for fault in self.reading.faults)
        if count and self.config.data.on_error == "fail":
            yield Line(
                "data.on_error", "skip", f"{count} entries are faulty: dsctool data check says why; better mend them"
            )

    def sides(self) -> Iterator[Line]:
        """The size to which images are resized."""
        if self.config.data.tiles is not None or self.config.data.jitter is not None:
            return
        base = (max(self.config.data.train_resize.short_sides), self.config.data.train_resize.long_side)
        images = np.sort(self.reading.sizes, axis=1).astype(float)
        native, ratio = float(np.median(images[:, 0])), float(np.quantile(images[:, 1] / images[:, 0], 0.95))
        short = self._short(base, native, ratio)
        long = max(ceil(short * base[1] / base[0]), ceil(short * min(ratio, LONGEST)))
        found = np.round(self.sizes.on_canvas((short, long)))
        share = 100 * self.sizes.small((short, long)) / len(self.sizes)
        low, high = np.quantile(found, 0.1), np.quantile(found, 0.9)
        spread = f"eight of ten instances then have {low:.0f} to {high:.0f} pixels (square root of the area), and "
        spread += f"{share:.0f} % less than {SMALL:g}"
        why = f"{self.name}'s own" if short == base[0] else f"{self.name} has {base[0]}"
        if short > base[0]:
            why += f", which makes {100 * self.sizes.small(base) / len(self.sizes):.0f} % smaller than {SMALL:g} pixels"
        elif short < base[0]:
            why += f", and half of the images have less than {native:.0f}: more would only be interpolated"
        if share > 100 * MANY:
            why += f"; more than {short} costs much{TILES_WORD}"
        lines = ("train_resize", "test_resize")
        for key in lines:
            yield Line(f"data.{key}.short_sides", [short], f"{spread}; {why}" if key == lines[0] else "as in training")
            limit = f"a limit: images are up to {ratio:.2f} times as long as high (19 of 20 of them)"
            yield Line(f"data.{key}.long_side", long, limit if key == lines[0] else "as in training")

    def _short(self, base: Resize, native: float, ratio: float) -> int:
        most = min(LARGEST_SIDE, STEP * ceil(ENLARGED * native / STEP))
        long = max(base[1], ceil(base[0] * min(ratio, LONGEST)))
        wanted = self.sizes.enough((base[0], long))[0]
        if wanted > base[0]:
            return max(base[0], min(wanted, most))
        tenth = float(np.quantile(self.sizes.on_canvas((base[0], long)), MANY)) * most / base[0]
        return most if most < base[0] and tenth >= 2 * SMALL else base[0]

    def anchors(self) -> Iterator[Line]:
        """Scale and ratios of anchors, by the boxes on the canvas."""
        rpn, seen = self.config.model.rpn, self.sizes.in_windows(self.config.data.tiles)
        boxes = seen.boxes * seen.factors(train_resize(self.config.data))[:, None]
        found = fit_anchors(boxes, rpn.anchor_scale, rpn.anchor_ratios)
        own = mean_best_iou(boxes, rpn.anchor_scale, rpn.anchor_ratios)
        yield from self._anchor_lines(found, own, float(np.median(np.sqrt(boxes.prod(axis=1)))))

    def _anchor_lines(self, found: Anchors, own: float, middle: float) -> Iterator[Line]:
        rpn = self.config.model.rpn
        gain = f"IoU of a box with its best anchor: {found.iou:.2f} on average"
        if found.scale != rpn.anchor_scale or found.ratios != rpn.anchor_ratios:
            gain += f", {own:.2f} with {self.name}'s (scale {rpn.anchor_scale:g})"
        sides = (
            f"anchors of {4 * found.scale:g} to {64 * found.scale:g} pixels, for boxes of {middle:.0f} in the middle"
        )
        yield Line("model.rpn.anchor_scale", found.scale, f"{sides}; {gain}")
        if found.ratios != rpn.anchor_ratios:
            yield Line("model.rpn.anchor_ratios", list(found.ratios), "height over width, as the boxes have it")

    def limits(self) -> Iterator[Line]:
        """How many results and proposals there may be."""
        most = int(self.usage.instances.max())
        for rule in RULES:
            number = rule.number(self.config, most)
            each = f"{rule.per_instance:g} for each of {most} instances, the most in a training image"
            yield Line(rule.key, "auto", f"{number}: {each}, and no less than recipes have at this size")
        rows = self.reading.annotations
        used = self.usage.used & ~rows.crowd
        groups = np.unique(np.stack([rows.image[used], rows.label[used]]), axis=1, return_counts=True)[1]
        if groups.max() > 100 and self.config.train.eval_max_dets == 100:
            yield Line(
                "train.eval_max_dets", "auto", f"an image has {groups.max()} instances of one class; COCO counts 100"
            )

    def validation(self) -> Iterator[Line]:
        """What is measured on."""
        data = self.config.data
        if data.val_share is not None or self.config.train.eval_interval == 0:
            return
        try:
            find_split(self.root, data.val, "val")
        except DataError:
            if self.images >= 5:
                yield Line(
                    "data.val_share", 0.2, "there is no validation split: a fifth of the training images is held out"
                )
            else:
                yield Line(
                    "train.eval_interval", 0, "there is no validation split, and too few images to hold some out"
                )

    def batch(self, measure: Measure | None, device: str, available: int | None) -> Iterator[Line]:
        """Images a step, by what a step of one and of two takes."""
        own = self.config.train.batch_size
        if measure is None or available is None:
            yield Line("train.batch_size", own, f"{self.name}'s own; not tried on this machine")
            return
        peaks = []
        for size in (1, 2):
            words = [
                f"train.batch_size={size}",
                "train.eval_interval=0",
                "train.early_stop=null",
                "train.val_losses=false",
            ]
            try:
                peaks.append(measure(override_config(self.config, words), self.root, device).peak)
            except OutOfMemoryError:
                break
        free = f"{available / 2**30:.1f} GiB are free"
        if not peaks:
            yield Line("train.batch_size", 1, f"not even one image fits: {free}; smaller data.train_resize takes less")
            yield Line("train.checkpoint_activations", True, "takes less memory and more time, for the same weights")
            return
        each = max(peaks[-1] - peaks[0], peaks[0] // 20) if len(peaks) > 1 else peaks[0]
        fits = max(1, int(1 + (ROOM * available - peaks[0]) / each)) if len(peaks) > 1 else 1
        most = max(1, min(fits, self.config.optim.reference_batch, self.images))
        size = 1 << (most.bit_length() - 1)
        took = f"a step of one image took {peaks[0] / 2**30:.2f} GiB, each further one {each / 2**30:.2f}; {free}"
        bound = f"; {self.name}'s learning rate is for {self.config.optim.reference_batch}, and scaled to fewer"
        yield Line("train.batch_size", size, took + bound)

    def schedule(self) -> Iterator[Line]:
        """How long to train."""
        train, optim = self.config.train, self.config.optim
        if train.steps is not None:  # somebody knows
            return
        held = 1 - (self.config.data.val_share or 0)
        each = max(1, ceil(held * self.images / (train.batch_size * train.accumulate)))
        kind = "scratch" if self.config.model.backbone.weights is None and train.weights is None else "pretrained"
        start = "from scratch" if kind == "scratch" else "from trained weights"
        epochs = max(train.epochs, min(MOST_EPOCHS, ceil(LEAST_STEPS[kind] / each)))
        steps = epochs * each
        why = f"{steps} steps of {train.batch_size * train.accumulate} images: training {start} wants some "
        why += f"{LEAST_STEPS[kind]} at least; {self.name} has {train.epochs} epochs"
        if epochs == MOST_EPOCHS and steps < LEAST_STEPS[kind]:
            why += ". More images would help more than more epochs"
        yield Line("train.epochs", epochs, why)
        if optim.warmup_steps > steps // 10:
            yield Line("optim.warmup_steps", max(1, steps // 10), "a tenth of the run")
        if optim.decay == "milestones" and epochs != train.epochs:
            yield Line("optim.decay", "linear", f"milestones {list(optim.milestones)} are for {train.epochs} epochs")
        if train.eval_interval == 1 and epochs > 24:
            yield Line("train.eval_interval", epochs // 12, "a dozen evaluations")
