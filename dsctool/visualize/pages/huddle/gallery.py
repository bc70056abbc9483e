"""The images on which two results differ most: ground truth, baseline and candidate side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.images import read_image
from dsctool.errors import DataError
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.structures import Size
from dsctool.visualize.draw import draw_instances

LONGEST = 640
"""Pixels of a picture's longer side, unless the image is very small."""
_LARGEST_SCALE = 4.0
_PLAIN = (52, 58, 64)  # where the image itself is not at hand
Entries = Sequence[Mapping[str, Any]]
"""COCO annotations or results."""


@dataclass(frozen=True)
class GalleryPanel:
    """A picture. role: ``Ground truth``, ``Baseline`` or ``Candidate``. shown: instances in it. precision: its AP."""

    role: str
    picture: Image.Image
    shown: int
    precision: float | None = None


@dataclass(frozen=True)
class GalleryEntry:
    """An image of the gallery. instances, huddled: of its ground truth, by the smallest T_O that is not negative."""

    name: str
    instances: int
    huddled: int
    panels: tuple[GalleryPanel, ...]

    @property
    def change(self) -> float | None:
        """The candidate's own AP minus the baseline's; None without one."""
        values = [panel.precision for panel in self.panels if panel.precision is not None]
        return values[1] - values[0] if len(values) == 2 else None


def gallery(
    study: HuddleStudy, *, images: Path | None = None, count: int = 12, score_threshold: float = 0.3
) -> list[GalleryEntry]:
    """Pictures of :func:`chosen_images`.

    images: the folder that the ground truth's file names are relative to; where it is not given, or an image cannot
    be read, instances are drawn on a plain ground. score_threshold: results below it are not drawn.
    """
    chosen = chosen_images(study, count)
    wanted = {study.table.images[row]: row for row in chosen}
    truth = _by_image(study.truth.annotations, wanted, lambda entry: not entry["iscrowd"])
    sources = [("Candidate", study.candidate, study.image_precision)]
    if study.baseline is not None and study.baseline_image_precision is not None:
        sources.insert(0, ("Baseline", study.baseline, study.baseline_image_precision))
    found = [_by_image(each.results, wanted, lambda entry: entry["score"] >= score_threshold) for _, each, _ in sources]
    names = {key: str(value.get("name", key)) for key, value in study.truth.categories.items()}
    huddled = _huddled(study)
    entries = []
    for image_id, row in wanted.items():
        info = study.truth.images[image_id]
        size = _size(info, [*truth[image_id], *(each for part in found for each in part[image_id])])
        ground = _ground(info, images, size)
        panels = [GalleryPanel("Ground truth", _drawn(ground, truth[image_id], names, size), len(truth[image_id]))]
        for (role, _, precision), part in zip(sources, found, strict=True):
            drawn = _drawn(ground, part[image_id], names, size)
            panels.append(GalleryPanel(role, drawn, len(part[image_id]), float(precision[row])))
        name = str(info.get("file_name", image_id))
        entries.append(GalleryEntry(name, len(truth[image_id]), int(huddled[row]), tuple(panels)))
    return entries


def chosen_images(study: HuddleStudy, count: int) -> list[int]:
    """Rows of ``study.table.images``: at most ``count``, those whose own AP differs most first.

    Of images with huddled instances where there are any. Without a baseline: those of lowest AP.
    """
    own, other = study.image_precision, study.baseline_image_precision
    worth = own - other if other is not None else 1.0 - own
    worth = np.where(np.isnan(worth), 0.0, np.abs(worth))
    huddled = _huddled(study) > 0
    if huddled.any():
        worth = np.where(huddled, worth, 0.0)
    order = np.argsort(-worth, kind="stable")[:count]
    return [int(row) for row in order if worth[row] > 0]


def _huddled(study: HuddleStudy) -> NDArray[np.int64]:
    threshold = min((t_o for t_o in study.settings.t_o if t_o >= 0), default=0.0)
    return np.bincount(study.table.image[study.overlaps > threshold], minlength=len(study.table.images))


def _by_image(
    entries: Entries, wanted: Mapping[Any, int], keep: Callable[[Mapping[str, Any]], bool]
) -> dict[Any, list[Mapping[str, Any]]]:
    parts: dict[Any, list[Mapping[str, Any]]] = {image: [] for image in wanted}
    for entry in entries:
        if entry["image_id"] in parts and keep(entry):
            parts[entry["image_id"]].append(entry)
    return parts


# --- drawing ----------------------------------------------------------------------------------------


def _size(info: Mapping[str, Any], entries: Entries) -> Size:
    """``(h, w)`` of the image, or of what its boxes cover where the file does not say."""
    height, width = info.get("height"), info.get("width")
    if isinstance(height, Integral) and isinstance(width, Integral) and min(int(height), int(width)) > 0:
        return int(height), int(width)
    boxes = [entry["bbox"] for entry in entries if "bbox" in entry]
    return (
        max([1, *(round(y + height) for _, y, _, height in boxes)]),
        max([1, *(round(x + width) for x, _, width, _ in boxes)]),
    )


def _ground(info: Mapping[str, Any], folder: Path | None, size: Size) -> Image.Image:
    """The image at the gallery's size, or a plain ground. Small images grow, so that lines and names are sharp."""
    scale = min(LONGEST / max(size), _LARGEST_SCALE)
    target = max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
    if folder is not None and isinstance(info.get("file_name"), str):
        try:
            pixels = read_image(folder / info["file_name"], size)
        except DataError:
            return Image.new("RGB", target, _PLAIN)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(target, Image.Resampling.LANCZOS)
    return Image.new("RGB", target, _PLAIN)


def _drawn(ground: Image.Image, entries: Entries, names: Mapping[Any, str], size: Size) -> Image.Image:
    across, down = ground.width / size[1], ground.height / size[0]
    masks = [_resized(entry["segmentation"], ground.size) for entry in entries if entry.get("segmentation")]
    boxes = [entry["bbox"] if "bbox" in entry else coco_mask.toBbox(entry["segmentation"]) for entry in entries]
    return draw_instances(
        ground,
        boxes=[(x * across, y * down, (x + w) * across, (y + h) * down) for x, y, w, h in boxes],
        names=[names.get(entry["category_id"], str(entry["category_id"])) for entry in entries],
        scores=[entry["score"] for entry in entries] if all("score" in entry for entry in entries) else None,
        masks=torch.stack(masks) if masks and len(masks) == len(entries) else None,
    )


def _resized(rle: Mapping[str, Any], size: tuple[int, int]) -> torch.Tensor:
    """``(h, w)`` bool for a Pillow size ``(w, h)``."""
    mask = Image.fromarray(255 * coco_mask.decode(dict(rle)))
    return torch.from_numpy(np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) >= 128)
