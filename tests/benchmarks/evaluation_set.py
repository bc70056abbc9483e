"""Ground truth and results as large as COCO's validation split, from a seed: ``python -m ... FOLDER [--images N]``.

5,000 images of 640x480 have 34,836 annotations (polygons; one in a hundred is a crowd, as uncompressed RLE) of 80
categories, as unevenly as COCO's, and 500,000 results with compressed masks: about six in ten lie on an instance, more
or less well, the rest anywhere. A second model's results are the baseline.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tests.benchmarks import figures as figures_module
from tests.benchmarks.figures import Array, Figures, polygon, runs

IMAGES, ANNOTATIONS, RESULTS_PER_IMAGE = 5000, 34836, 100
HEIGHT, WIDTH = 480, 640
CATEGORIES = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO's ids."""
CHUNK = 20
"""Images that are made at a time."""


@dataclass(frozen=True)
class EvaluationSet:
    """The three files."""

    truth: Path
    results: Path
    baseline: Path

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [self.truth, self.results, self.baseline]


@dataclass(frozen=True)
class Objects:
    """What lies in some images.

    images: ``(N,)`` index of each one's image, ascending. categories: ``(N,)`` index of its category.
    """

    figures: Figures
    images: Array
    categories: Array


def evaluation_set(folder: Path, *, images: int = IMAGES, seed: int = 0) -> EvaluationSet:
    """The set of so many images in ``folder``, made unless it is there."""
    code = b"".join(Path(file).read_bytes() for file in (__file__, figures_module.__file__))
    place = folder / f"evaluation-{images}-{seed}-{hashlib.sha256(code).hexdigest()[:8]}"
    files = EvaluationSet(*(place / f"{name}.json" for name in ("truth", "results", "baseline")))
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        part.mkdir(exist_ok=True)
        for file, (head, entries, tail) in zip(files.files, _contents(images, seed), strict=True):
            with (part / file.name).open("w") as text:
                text.write(head)
                for number, entry in enumerate(entries):
                    text.write(f", {entry}" if number else entry)
                text.write(tail)
        part.rename(place)
    return files


def _contents(images: int, seed: int) -> Iterator[tuple[str, Iterator[str], str]]:
    """Of each file what comes before, between and after its entries."""
    random = np.random.default_rng([seed, 0])
    share = random.gamma(1.2, size=images)
    counts = random.multinomial(max(images * ANNOTATIONS // IMAGES, 1), share / share.sum())
    ids = np.sort(random.choice(np.arange(1, 120 * images), images, replace=False))

    def chunks() -> Iterator[tuple[int, Array, Objects]]:
        for first in range(0, images, CHUNK):
            chunk = slice(first, first + CHUNK)
            yield first, ids[chunk], _truth(np.random.default_rng([seed, 1, first]), counts[chunk])

    def annotations() -> Iterator[str]:
        for first, some, objects in chunks():
            yield from _annotations(objects, some, int(counts[:first].sum()), np.random.default_rng([seed, 2, first]))

    def results(model: int) -> Iterator[str]:
        for first, some, objects in chunks():
            random = np.random.default_rng([seed, 3 + model, first])
            found, scores = _found(random, objects, len(some), error=1 + 0.3 * model)
            yield from _results(found, scores, some, random)

    yield _head(ids), annotations(), "]}"
    yield "[", results(0), "]"
    yield "[", results(1), "]"


# --- what there is ----------------------------------------------------------------------------------


def _anywhere(random: np.random.Generator, count: int) -> Figures:
    """Figures of COCO's sizes: half of them smaller than 75 pixels."""
    side, aspect = np.exp(random.normal(np.log(75), 0.9, count)), np.exp(random.normal(0, 0.3, count))
    sides = np.stack([np.clip(side * aspect, 4, 620), np.clip(side / aspect, 4, 460)], axis=1)
    corners = random.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    return Figures(np.concatenate([corners, sides], axis=1), random.uniform(0, 2 * np.pi, (count, 4)))


def _categories(random: np.random.Generator, count: int | tuple[int, int]) -> Array:
    share = 1 / np.arange(1, len(CATEGORIES) + 1)
    return random.choice(len(CATEGORIES), count, p=share / share.sum())


def _truth(random: np.random.Generator, counts: Array) -> Objects:
    """``counts`` instances in each image, of three categories at most."""
    total = int(counts.sum())
    images = np.repeat(np.arange(len(counts)), counts)
    palettes = _categories(random, (len(counts), 3))
    return Objects(_anywhere(random, total), images, palettes[images, random.integers(0, 3, total)])


def _found(random: np.random.Generator, truth: Objects, images: int, error: float) -> tuple[Objects, Array]:
    """What a detector finds, and the scores; ``error``: the larger, the worse."""
    total = images * RESULTS_PER_IMAGE
    image = np.repeat(np.arange(images), RESULTS_PER_IMAGE)
    counts = np.bincount(truth.images, minlength=images)
    near = (counts[image] > 0) & (random.random(total) < 0.6)
    owner = ((np.cumsum(counts) - counts)[image] + random.random(total) * counts[image]).astype(np.int64)[near]
    found = _anywhere(random, total)
    off = random.exponential(0.12 * error, (len(owner), 1)) * random.normal(0, 1, (len(owner), 4))
    boxes, sides = truth.figures.boxes[owner], truth.figures.boxes[owner, 2:]
    sides_found = np.clip(sides * np.exp(off[:, 2:]), 4, [WIDTH - 10, HEIGHT - 10])
    corners = boxes[:, :2] + (sides - sides_found) / 2 + off[:, :2] * sides
    found.boxes[near] = np.concatenate([np.clip(corners, 0, [WIDTH, HEIGHT] - sides_found), sides_found], axis=1)
    found.bumps[near] = truth.figures.bumps[owner] + 3 * off
    categories = _categories(random, total)
    right = random.random(len(owner)) < 0.85
    categories[near] = np.where(right, truth.categories[owner], categories[near])
    scores = random.beta(1, 8, total)
    scores[near] = random.beta(4, 2, len(owner)) * np.exp(-4 * np.abs(off).mean(1))
    return Objects(found, image, categories), scores.round(5)


# --- how it is written ------------------------------------------------------------------------------


def _head(ids: Array) -> str:
    images = [{"id": id_, "file_name": f"{id_:012}.jpg", "width": WIDTH, "height": HEIGHT} for id_ in ids.tolist()]
    categories = [{"id": id_, "name": f"category {id_}"} for id_ in CATEGORIES]
    return f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": ['


def _annotations(objects: Objects, ids: Array, done: int, random: np.random.Generator) -> Iterator[str]:
    if len(objects.figures) == 0:
        return
    masks = runs(objects.figures, (HEIGHT, WIDTH)).lists()
    points = random.integers(8, 24, len(masks)).tolist()
    crowd = random.random(len(masks)) < 0.01
    for index, counts in enumerate(masks):
        outline: Any = [polygon(objects.figures, index, points[index])]
        if crowd[index]:
            outline = {"size": [HEIGHT, WIDTH], "counts": counts}
        mask = coco_mask.frPyObjects(outline, HEIGHT, WIDTH)
        mask = mask if crowd[index] else mask[0]
        yield json.dumps(
            {
                "segmentation": outline,
                "area": float(coco_mask.area(mask)),
                "iscrowd": int(crowd[index]),
                "image_id": int(ids[objects.images[index]]),
                "bbox": coco_mask.toBbox(mask).tolist(),
                "category_id": CATEGORIES[objects.categories[index]],
                "id": done + index + 1,
            }
        )


def _results(found: Objects, scores: Array, ids: Array, random: np.random.Generator) -> Iterator[str]:
    """Boxes are the masks' but for half a pixel, in the digits of a network's float32."""
    masks = runs(found.figures, (HEIGHT, WIDTH))
    boxes = (masks.boxes + random.normal(0, 0.5, masks.boxes.shape)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    categories = np.array(CATEGORIES)[found.categories].tolist()
    columns = zip(ids[found.images].tolist(), categories, boxes.tolist(), scores.tolist(), masks.texts(), strict=True)
    for image, category, box, score, counts in columns:
        text = counts.replace("\\", "\\\\")
        yield (
            f'{{"image_id": {image}, "category_id": {category}, "bbox": {box}, "score": {score}, '
            f'"segmentation": {{"size": [{HEIGHT}, {WIDTH}], "counts": "{text}"}}}}'
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(*evaluation_set(given.folder, images=given.images, seed=given.seed).files, sep="\n")
