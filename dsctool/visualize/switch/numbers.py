"""Switch maps as numbers: the mean of each layer, and the mean inside small, medium and large objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.terms import LARGE_AREA, MEDIUM_AREA, Size
from dsctool.visualize.switch.record import SwitchMap, SwitchRecord, Values

CocoObject = Mapping[str, Any]
"""A COCO result or annotation: ``bbox``, ``segmentation`` as RLE where there is one, ``area`` of annotations."""


@dataclass(frozen=True)
class ImageNumbers:
    """The switch on one image, L layers and n objects.

    layers: names of the maps. means, minima, maxima: ``(L,)``, over the cells of each map.
    inside: ``(L, n)``, mean of each map over the pixels of each object. areas: ``(n,)``, square pixels.
    """

    layers: list[str]
    means: Values
    minima: Values
    maxima: Values
    inside: Values
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Objects by size."""

    small: int
    medium: int
    large: int


@dataclass(frozen=True)
class LayerNumbers:
    """One layer's switch over some images.

    mean: of the images' means. minimum, maximum: over all cells. small, medium, large: mean over the objects of
    that size, of the mean inside each; None where there is no such object.
    """

    layer: str
    mean: float
    minimum: float
    maximum: float
    small: float | None
    medium: float | None
    large: float | None


@dataclass(frozen=True)
class Summary:
    """Numbers over some images; ``overall`` is the mean of the layers, each counting the same."""

    objects: Counts
    overall: LayerNumbers
    layers: list[LayerNumbers]


def measure(record: SwitchRecord, objects: Iterable[CocoObject]) -> ImageNumbers:
    """The numbers of one image; objects without a pixel in the image are left out."""
    areas, inside = [], []
    for each in objects:
        means = _means_inside(record.maps, each, record.image_size)
        if means is not None:
            areas.append(_area(each))
            inside.append(means)
    values = [each.values for each in record.maps]
    return ImageNumbers(
        layers=[each.name for each in record.maps],
        means=np.asarray([each.mean(dtype=np.float64) for each in values], dtype=np.float32),
        minima=np.asarray([each.min() for each in values]),
        maxima=np.asarray([each.max() for each in values]),
        inside=np.asarray(inside, dtype=np.float32).reshape(-1, len(values)).T,
        areas=np.asarray(areas, dtype=np.float64),
    )


def summarize(images: Sequence[ImageNumbers]) -> Summary:
    """The numbers over all ``images``, at least one, which have the same layers."""
    areas = np.concatenate([image.areas for image in images])
    inside = np.concatenate([image.inside for image in images], axis=1)
    means = np.mean([image.means for image in images], axis=0)
    minima = np.min([image.minima for image in images], axis=0)
    maxima = np.max([image.maxima for image in images], axis=0)
    chosen = [areas < MEDIUM_AREA, (areas >= MEDIUM_AREA) & (areas < LARGE_AREA), areas >= LARGE_AREA]

    def numbers(name: str, rows: list[int]) -> LayerNumbers:
        small, medium, large = (float(inside[rows][:, size].mean()) if size.any() else None for size in chosen)
        minimum, maximum = float(minima[rows].min()), float(maxima[rows].max())
        return LayerNumbers(name, float(means[rows].mean()), minimum, maximum, small, medium, large)

    layers = images[0].layers
    return Summary(
        objects=Counts(*(int(size.sum()) for size in chosen)),
        overall=numbers("all layers", list(range(len(layers)))),
        layers=[numbers(name, [row]) for row, name in enumerate(layers)],
    )


def _means_inside(maps: Sequence[SwitchMap], each: CocoObject, size: Size) -> list[float] | None:
    """Mean of every map over the object's pixels; None for an object without any.

    The mean of an upsampled map over a mask is a weighted sum of the map's cells. All maps of a stage have the
    same cells, so the weights are computed once per stage.
    """
    cropped = _pixels(each, size)
    if cropped is None:
        return None
    window, top, left = cropped
    weights: dict[int, Values] = {}
    means = []
    for switch in maps:
        if switch.stage not in weights:
            rows, columns = switch.interpolation(size)
            height, width = window.shape
            share = rows[top : top + height].T @ window @ columns[left : left + width]
            weights[switch.stage] = share / window.sum(dtype=np.float64)
        means.append(float((weights[switch.stage] * switch.values).sum(dtype=np.float64)))
    return means


def _pixels(each: CocoObject, size: Size) -> tuple[Values, int, int] | None:
    """The object's mask (else its box) around its pixels, 0 and 1, with the row and the column it begins at."""
    if each.get("segmentation"):
        mask = coco_mask.decode(each["segmentation"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return None
        window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return window.astype(np.float32), int(rows[0]), int(columns[0])
    x, y, width, height = each["bbox"]
    left, top = max(int(np.floor(x)), 0), max(int(np.floor(y)), 0)
    right, bottom = min(int(np.ceil(x + width)), size[1]), min(int(np.ceil(y + height)), size[0])
    if right <= left or bottom <= top:
        return None
    return np.ones((bottom - top, right - left), dtype=np.float32), top, left


def _area(each: CocoObject) -> float:
    if "area" in each:
        return float(each["area"])
    if each.get("segmentation"):
        return float(coco_mask.area(each["segmentation"]))
    return float(each["bbox"][2] * each["bbox"][3])
