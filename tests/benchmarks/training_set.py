"""A training set as large as COCO's: ``python -m tests.benchmarks.training_set FOLDER [--images N] [--seed N]``.

118,287 images have 860,001 annotations in 448 MB of JSON with every key that COCO's files have; the validation split
has 5,000 images. All images are links to one picture of 160x120 pixels, which takes no time to decode. The outlines are
of 4,096 figures, with as many points as make the file as large as COCO's; one annotation in a hundred is a crowd, as
uncompressed RLE.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tests.benchmarks.evaluation_set import CATEGORIES
from tests.benchmarks.figures import Figures, polygon, runs

IMAGES, ANNOTATIONS = 118_287, 860_001
VAL_SHARE = 5000 / IMAGES
HEIGHT, WIDTH = 120, 160
FIGURES = 4096


def training_set(folder: Path, *, images: int = IMAGES, seed: int = 0) -> Path:
    """A data set in the standard layout inside ``folder``, made unless it is there."""
    root = folder / f"training-{images}-{seed}"
    if not root.exists():
        part = root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        (part / "annotations").mkdir(parents=True)
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(part / "picture.jpg")
        outlines = _outlines(random, min(FIGURES, 10 * images))
        for split, count in (("train2017", images), ("val2017", max(1, round(images * VAL_SHARE)))):
            _write_split(part, split, count, outlines, random)
        part.rename(root)
    return root


def _write_split(root: Path, split: str, count: int, outlines: list[str], random: np.random.Generator) -> None:
    (root / split).mkdir()
    ids = np.sort(random.choice(np.arange(1, 5 * count + 1), count, replace=False)).tolist()
    for id_ in ids:
        (root / split / f"{id_:012}.jpg").symlink_to("../picture.jpg")
    with (root / "annotations" / f"instances_{split}.json").open("w") as file:
        file.write('{"info": {"description": "made for a measurement"}, "licenses": [], "images": [')
        for number, id_ in enumerate(ids):
            file.write(", " * (number > 0) + _image(id_, split))
        file.write('], "annotations": [')
        for number, entry in enumerate(_annotations(ids, outlines, random)):
            file.write(", " * (number > 0) + entry)
        file.write(f'], "categories": {json.dumps(_categories())}}}')


def _image(id_: int, split: str) -> str:
    url = f"http://images.example.org/{split}/{id_:012}.jpg"
    return (
        f'{{"license": 3, "file_name": "{id_:012}.jpg", "coco_url": "{url}", "height": {HEIGHT}, "width": {WIDTH}, '
        f'"date_captured": "2013-11-14 11:18:45", "flickr_url": "{url}", "id": {id_}}}'
    )


def _annotations(ids: list[int], outlines: list[str], random: np.random.Generator) -> Iterator[str]:
    """Annotations in no order of their images, as in COCO's files; some images have none."""
    count = round(len(ids) * ANNOTATIONS / IMAGES)
    share = 1 / np.arange(1, len(CATEGORIES) + 1)
    owners = random.choice(len(ids), count, p=(weights := random.gamma(1.2, size=len(ids))) / weights.sum())
    categories = random.choice(CATEGORIES, count, p=share / share.sum()).tolist()
    chosen = random.integers(0, len(outlines), count).tolist()
    columns = zip(owners.tolist(), categories, chosen, strict=True)
    for number, (owner, category, outline) in enumerate(columns, start=1):
        yield f'{{{outlines[outline]}, "image_id": {ids[owner]}, "category_id": {category}, "id": {number}}}'


def _outlines(random: np.random.Generator, count: int) -> list[str]:
    """The keys of annotations that figures decide."""
    sides = np.exp(random.normal(np.log(20), 0.6, (count, 2))).clip(3, [WIDTH, HEIGHT])
    corners = random.random((count, 2)) * ([WIDTH, HEIGHT] - sides)
    figures = Figures(np.concatenate([corners, sides], axis=1), random.uniform(0, 2 * np.pi, (count, 4)))
    masks = runs(figures, (HEIGHT, WIDTH)).lists()
    points = random.integers(5, 23, count).tolist()
    return [
        _outline({"size": [HEIGHT, WIDTH], "counts": masks[index]}, crowd=1)
        if index % 100 == 0
        else _outline([polygon(figures, index, points[index])], crowd=0)
        for index in range(count)
    ]


def _outline(segmentation: object, *, crowd: int) -> str:
    mask = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    mask = mask if crowd else mask[0]
    entries = {
        "segmentation": segmentation,
        "area": float(coco_mask.area(mask)),
        "iscrowd": crowd,
        "bbox": coco_mask.toBbox(mask).tolist(),
    }
    return json.dumps(entries)[1:-1]


def _categories() -> list[dict[str, object]]:
    return [{"supercategory": "thing", "id": id_, "name": f"category {id_}"} for id_ in CATEGORIES]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(training_set(given.folder, images=given.images, seed=given.seed))
