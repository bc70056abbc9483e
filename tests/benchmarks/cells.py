"""Pictures full of cells, and perfect results for them: ``python -m tests.benchmarks.cells FOLDER``.

FOLDER gets a data set in the standard layout, whose ``--images`` (4) pictures of 1,000x800 have ``--instances`` (400)
cells each, from 8 to 160 pixels long, half of them shorter than 36; both splits are the same. ``perfect.json`` has the
truth as results, the larger cells with the higher scores:

    dsctool eval --ground-truth FOLDER/annotations/instances_val.json --predictions FOLDER/perfect.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.benchmarks.figures import Figures, polygon, runs

HEIGHT, WIDTH = 800, 1000
Json = dict[str, Any]


def cell_set(root: Path, *, images: int = 4, instances: int = 400, seed: int = 0) -> tuple[Path, Path]:
    """Make the set in ``root``; the annotations of its split ``val``, and the perfect results."""
    random = np.random.default_rng(seed)
    truth: Json = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
    for image in range(1, images + 1):
        name, cells = f"{image}.jpg", _cells(random, instances)
        picture = _picture(random, cells)
        for split in ("train", "val"):
            picture.save(root / split / name)
        truth["images"].append({"id": image, "file_name": name, "height": HEIGHT, "width": WIDTH})
        truth["annotations"] += _annotations(cells, image, first=len(truth["annotations"]) + 1)
    (root / "annotations").mkdir()
    files = [root / "annotations" / f"instances_{split}.json" for split in ("train", "val")]
    for file in files:
        file.write_text(json.dumps(truth))
    (root / "perfect.json").write_text(json.dumps(perfect_results(truth)))
    return files[-1], root / "perfect.json"


def perfect_results(truth: Json) -> list[Json]:
    """Every instance, found exactly."""
    keys = ("image_id", "category_id", "bbox", "segmentation")
    largest = max(annotation["area"] for annotation in truth["annotations"])
    return [
        {key: annotation[key] for key in keys} | {"score": annotation["area"] / largest}
        for annotation in truth["annotations"]
    ]


def _cells(random: np.random.Generator, count: int) -> Figures:
    sides = np.exp(random.uniform(np.log(8), np.log(160), (count, 1))) * random.uniform(0.7, 1, (count, 2))
    corners = random.random((count, 2)) * ([WIDTH, HEIGHT] - sides)
    return Figures(np.concatenate([corners, sides], axis=1), random.uniform(0, 2 * np.pi, (count, 4)))


def _annotations(cells: Figures, image: int, *, first: int) -> list[Json]:
    masks = runs(cells, (HEIGHT, WIDTH))
    columns = zip(masks.boxes.tolist(), masks.texts(), masks.lists(), strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "iscrowd": 0,
            "area": sum(counts[1::2]),
            "bbox": box,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": text},
        }
        for number, (box, text, counts) in enumerate(columns, start=first)
    ]


def _picture(random: np.random.Generator, cells: Figures) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT), (40, 40, 60))
    draw = ImageDraw.Draw(picture)
    for index, shade in enumerate(random.integers(90, 256, len(cells)).tolist()):
        draw.polygon(polygon(cells, index, 20), fill=(shade // 2, shade, shade // 2), outline=(20, 30, 20))
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--instances", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(*cell_set(given.folder, images=given.images, instances=given.instances, seed=given.seed), sep="\n")
