"""Panoptic ground truth with void and crowds, results that err in every way, and panoptic quality by its definition."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

THINGS, STUFF = (1, 3, 4), (92, 184, 200)
CATEGORIES = [
    {"id": id_, "name": f"c{id_}", "supercategory": "", "isthing": int(id_ in THINGS), "color": [0, 0, id_]}
    for id_ in (*STUFF, *THINGS, 7)  # 7: a category of stuff that nothing belongs to
]


@dataclass
class Scene:
    """An image. ids: ``(h, w)``. categories: by segment id. crowds: segment ids. areas: as a file is to say them."""

    ids: np.ndarray
    categories: dict[int, int]
    crowds: frozenset[int] = frozenset()
    areas: dict[int, int] | None = None

    def entry(self, image_id: int) -> dict[str, Any]:
        """In ``annotations``."""
        counted = {each: int((self.ids == each).sum()) for each in self.categories}
        segments = [
            {
                "id": each,
                "category_id": category,
                "iscrowd": int(each in self.crowds),
                "area": (self.areas or counted)[each],
                "bbox": [0, 0, 1, 1],
            }
            for each, category in self.categories.items()
        ]
        return {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments}


def write(path: Path, scenes: list[Scene], categories: list[dict[str, Any]] = CATEGORIES) -> Path:
    """As a panoptic file, by other means than the package's."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        ids = scene.ids
        pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(len(scenes))]
    entries = [scene.entry(number) for number, scene in enumerate(scenes)]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": entries}))
    return path


def drawn(random: np.random.Generator, size: tuple[int, int] = (40, 56)) -> Scene:
    """Boxes of things, crowds and stuff over each other, some void between them."""
    ids = np.zeros(size, dtype=np.int64)
    categories: dict[int, int] = {}
    crowds = set()
    for _ in range(int(random.integers(2, 14))):
        id_ = int(random.integers(1, 2**24))
        crowd = random.random() < 0.25
        stuff = not crowd and random.random() < 0.4
        _box(random, ids)[...] = id_
        categories[id_] = int(random.choice(STUFF if stuff else THINGS[:2] if crowd else THINGS))
        if crowd:
            crowds.add(id_)
    return _without_empty(Scene(ids, categories, frozenset(crowds)))


def with_odd_file(random: np.random.Generator, scene: Scene) -> Scene:
    """Ground truth whose file disagrees with its PNG: areas, segments without pixels, pixels without segments."""
    areas = {each: int((scene.ids == each).sum()) for each in scene.categories}
    areas = {each: area + int(random.integers(0, 1 + area // 5)) for each, area in areas.items()}
    categories, ids = dict(scene.categories), scene.ids.copy()
    listed = list(categories)
    if len(listed) > 2:
        del categories[listed[0]], areas[listed[0]]
        ids[ids == listed[1]] = 0
    return Scene(ids, categories, scene.crowds & categories.keys(), areas)


def perturbed(random: np.random.Generator, truth: Scene) -> Scene:
    """Results that are nearly the truth: moved, split, merged, relabelled, erased; over void, over crowds, new ones."""
    ids, categories = truth.ids.copy(), {each: truth.categories.get(each, 1) for each in np.unique(truth.ids) if each}
    for _ in range(int(random.integers(0, 9))):
        segments = [each for each in np.unique(ids) if each]
        if not segments:
            break
        one, other = (int(random.choice(segments)) for _ in range(2))
        new = int(random.integers(1, 2**24))
        there = ids == one
        match random.integers(0, 9):
            case 0:  # moved
                ids[there] = 0
                ids[np.roll(there, random.integers(-9, 10, 2), (0, 1))] = one
            case 1:  # split
                rows = np.flatnonzero(there.any(1))
                ids[there & (np.arange(len(ids)) > random.choice(rows))[:, None]] = new
                categories[new] = categories[one]
            case 2:  # merged
                ids[ids == other] = one
            case 3:  # relabelled
                categories[one] = int(random.choice([*THINGS, *STUFF]))
            case 4:  # erased
                ids[there] = 0
            case 5:  # part of it erased
                _box(random, ids)[...] = 0
            case 6:  # something over void
                ids[(ids == 0) & (random.random(ids.shape) < 0.9)] = new
                categories[new] = int(random.choice([*THINGS, *STUFF]))
            case 7:  # things over a crowd
                crowd = int(random.choice([*truth.crowds] or segments))
                ids[truth.ids == crowd] = new
                categories[new] = truth.categories.get(crowd, 1) if random.random() < 0.7 else 4
            case 8:  # something new
                _box(random, ids)[...] = new
                categories[new] = int(random.choice([*THINGS, *STUFF]))
    return _without_empty(Scene(ids, {int(each): category for each, category in categories.items()}))


def cut(scene: Scene, random: np.random.Generator, side: int = 80) -> Scene:
    """A window of it."""
    top, left = (int(random.integers(0, length - side)) for length in scene.ids.shape)
    return _without_empty(replace(scene, ids=scene.ids[top : top + side, left : left + side]))


def _box(random: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    height, width = ids.shape
    top, left = random.integers(0, height - 4), random.integers(0, width - 4)
    return ids[top : top + random.integers(4, height), left : left + random.integers(4, width)]


def _without_empty(scene: Scene) -> Scene:
    there = {int(each) for each in np.unique(scene.ids)}
    categories = {each: category for each, category in scene.categories.items() if each in there}
    return Scene(scene.ids, categories, scene.crowds & categories.keys())


def defined_counts(pairs: list[tuple[Scene, Scene]]) -> dict[int, tuple[int, int, int, float]]:
    """TP, FP, FN and the sum of IoU by category, segment by segment as the definition has it."""
    counts: defaultdict[int, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for truth, found in pairs:
        true = {each["id"]: each for each in truth.entry(0)["segments_info"]}
        void = truth.ids == 0
        partners: set[tuple[str, int]] = set()
        for id_, segment in true.items():
            for other, category in found.categories.items():
                if segment["iscrowd"] or segment["category_id"] != category:
                    continue
                there = found.ids == other
                inter = int((there & (truth.ids == id_)).sum())
                union = int((there & ~void).sum()) + segment["area"] - inter
                if inter / union > 0.5:
                    counts[category][0] += 1
                    counts[category][3] += inter / union
                    partners |= {("true", id_), ("found", other)}
        crowds = {each["category_id"]: id_ for id_, each in true.items() if each["iscrowd"]}
        for id_, segment in true.items():
            counts[segment["category_id"]][2] += not segment["iscrowd"] and ("true", id_) not in partners
        for other, category in found.categories.items():
            there = found.ids == other
            excused = there & (void | (truth.ids == crowds.get(category, -1)))
            counts[category][1] += ("found", other) not in partners and excused.sum() / there.sum() <= 0.5
    return {category: (int(tp), int(fp), int(fn), iou) for category, (tp, fp, fn, iou) in counts.items()}
