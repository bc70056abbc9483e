"""Whether an exported file finds what its checkpoint finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsctool.data.bands import Channels
from dsctool.data.images import read_image
from dsctool.data.synthetic.scenes import draw_scene
from dsctool.data.transforms import inference_transform, pad_images
from dsctool.engine.split_results import evaluate_model
from dsctool.errors import DataError
from dsctool.interop.export_file import LayerPrecision, Pixels
from dsctool.interop.exported import ExportedDetector
from dsctool.models.detector import Detector, pasted
from dsctool.structures import Detections
from dsctool.terms import KINDS, Kind, Progress, Size

SCENE_SIZES: tuple[Size, ...] = ((480, 640), (640, 480), (480, 480))
"""Height and width of the pictures that are drawn where none are given, in turn."""


@dataclass(frozen=True)
class Limits:
    """The most by which a file may differ.

    box: pixels of the original picture. score, mask: of 1; masks may differ more, since the number of samples that
    RoIAlign takes of a bin follows from a rounded length. pixels: share of the masks' pixels. share: of the detections
    may have no partner; two of nearly the same score may change places, and then one of two that suppress each other
    stays in place of the other.
    """

    box: float = 0.1
    score: float = 1e-3
    mask: float = 5e-2
    pixels: float = 5e-3
    share: float = 0.01

    @classmethod
    def of(cls, precision: LayerPrecision, pixels: Pixels) -> Limits:
        """Of files whose layers compute in float32 or in float16; what int8 costs is told in AP (:func:`ap_cost`).

        Where a file resizes pictures, some of their pixels are a 255th off: training's resizing rounds its weights.
        """
        exact = precision == "float32" and pixels != "picture"
        return cls() if exact else cls(box=1.0, score=1e-2, mask=0.2, pixels=1e-2, share=0.05)


@dataclass
class Differences:
    """What a checkpoint and its exported file find, side by side: the largest differences so far.

    pictures: seen. found: by the checkpoint. alone: detections of either without a partner, a detection of the same
    class that nearly has its box and score. box: pixels. score, mask: of 1. pixels: share of the pixels of all masks
    that have partners which differ.
    """

    pictures: int = 0
    found: int = 0
    alone: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0
    _wrong: int = 0
    _pixels: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def pixels(self) -> float:
        """Share of the masks' pixels."""
        return self._wrong / self._pixels if self._pixels else 0.0

    def add(self, name: str, expected: Detections, found: Detections) -> None:
        """Compare what was found in a picture."""
        rows, partners = partners_of(expected, found)
        self.pictures += 1
        self.found += len(expected)
        self.alone += len(expected) + len(found) - 2 * len(rows)
        self.names.append(name)
        ours, theirs = expected[rows], found[partners]
        self.box = max(self.box, _largest(ours.boxes, theirs.boxes))
        self.score = max(self.score, _largest(ours.scores, theirs.scores))
        if ours.mask_probs is not None and theirs.mask_probs is not None:
            self.mask = max(self.mask, _largest(ours.mask_probs, theirs.mask_probs))
            for row in range(len(rows)):  # one by one: bitmaps are large
                one = torch.tensor([row])
                first, second = (pasted([side[one]])[0].masks for side in (ours, theirs))
                assert first is not None
                assert second is not None
                self._wrong += int((first ^ second).sum())
                self._pixels += int(first.sum())

    def beyond(self, limits: Limits) -> list[str]:
        """What differs more than it may, in words."""
        checks = (
            ("boxes", self.box, limits.box, "px"),
            ("scores", self.score, limits.score, ""),
            ("mask probabilities", self.mask, limits.mask, ""),
            ("pixels of masks", self.pixels, limits.pixels, "of all"),
            ("detections without a partner", self.alone / max(2 * self.found, 1), limits.share, "of all"),
        )
        return [
            f"{name}: {value:.3g} {unit}".rstrip() + f", of which {limit:g} may be"
            for name, value, limit, unit in checks
            if not value <= limit
        ]


def partners_of(expected: Detections, found: Detections) -> tuple[Tensor, Tensor]:
    """Rows of ``expected`` and of ``found`` that are the same thing: ``(m,)`` int64 each.

    Best first, each takes the one of its class that is left with the nearest box, within a pixel and 0.01 of its score.
    """
    distance = torch.cdist(expected.boxes.double(), found.boxes.double(), p=torch.inf)
    near = (expected.labels[:, None] == found.labels) & ((expected.scores[:, None] - found.scores).abs() <= 0.01)
    distance = distance.masked_fill(~(near & (distance <= 1)), torch.inf)
    rows, partners = [], []
    for row in range(len(expected)):
        if not len(found):
            break
        best = int(distance[row].argmin())
        if distance[row, best] < torch.inf:
            rows.append(row)
            partners.append(best)
            distance[:, best] = torch.inf
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(partners, dtype=torch.int64)


def differences(
    detector: Detector, exported: ExportedDetector, pictures: Iterator[tuple[str, Tensor]], *, count: int
) -> Differences:
    """Run both over ``count`` pictures, uint8 ``(C, h, w)``, resized as the file says.

    The checkpoint sees every picture by itself, on the canvas that the file has for it. Pictures that do not fit are
    left out.

    Raises:
        DataError: none fits, or a file cannot be read.
    """
    data, found = exported.config.data, Differences()
    transform = inference_transform(data)
    chosen = list(islice(((name, picture) for name, picture in pictures if exported.fits(_size(picture))), count))
    if not chosen:
        raise DataError(f"none of the pictures fits the canvas {exported.form.canvas} (height, width)")
    for start in range(0, len(chosen), exported.form.batch):
        some = chosen[start : start + exported.form.batch]
        images = pad_images([transform.image(picture) for _, picture in some], data.pad_divisor)
        originals = [_size(picture) for _, picture in some]
        tensor = exported.on_canvas(images.tensor)
        if exported.form.pixels == "picture":
            theirs = [exported.detect_picture(picture) for _, picture in some]
        else:
            theirs = exported.detect(tensor, images.sizes, originals)
        for row, (name, _) in enumerate(some):
            (ours,) = detector.detect(tensor[row : row + 1], images.sizes[row : row + 1], originals[row : row + 1])
            found.add(name, ours, theirs[row])
    return found


def ap_cost(
    detector: Detector, exported: ExportedDetector, data: Path, progress: Progress | None = None
) -> dict[Kind, tuple[float, float]]:
    """Box and mask AP on the val split of ``data``, of the checkpoint and of the file.

    Raises:
        DataError: the data set has faults, or other categories.
    """
    ours, theirs = (evaluate_model(each, data, progress=progress).stats for each in (detector, exported))
    return {
        kind: (before["AP"], after["AP"])
        for kind in KINDS
        if (before := ours[kind]) is not None and (after := theirs[kind]) is not None
    }


def pictures_in(files: Sequence[Path], channels: Channels) -> Iterator[tuple[str, Tensor]]:
    """What files show, as the network sees it before it is resized."""
    for file in files:
        yield file.name, read_image(file, channels=channels)


def drawn_pictures(channels: int) -> Iterator[tuple[str, Tensor]]:
    """Generated scenes, always the same; red, green and blue in turn become the channels."""
    number = 0
    while True:
        rng = np.random.default_rng(number)
        scene = draw_scene(rng, SCENE_SIZES[number % len(SCENE_SIZES)], huddle=0.5)
        picture = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
        yield f"scene {number + 1}", picture[[channel % 3 for channel in range(channels)]]
        number += 1


def _size(picture: Tensor) -> Size:
    return int(picture.shape[-2]), int(picture.shape[-1])


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max()) if ours.numel() else 0.0
