"""The definitions of the panoptic huddle report, written down as plainly as they can be: slow."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tests.evaluation.huddle.slow_huddle import crowded_images, largest_overlap
from tests.evaluation.panoptic_scenes import THINGS, Scene, defined_counts, write

Json = dict[str, Any]
Pairs = list[tuple[Scene, Scene]]


# --- files ------------------------------------------------------------------------------------------


def box_of(mask: np.ndarray) -> list[int]:
    """x, y, width, height around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def write_truth(path: Path, scenes: list[Scene]) -> Path:
    """With sizes of images, and boxes in all images but every third."""
    write(path, scenes)
    content = json.loads(path.read_text())
    for image, entry, scene in zip(content["images"], content["annotations"], scenes, strict=True):
        image["height"], image["width"] = scene.ids.shape
        for segment in entry["segments_info"]:
            segment["bbox"] = box_of(scene.ids == segment["id"])
            if entry["image_id"] % 3 == 2:
                del segment["bbox"]
    path.write_text(json.dumps(content))
    return path


def as_result(mask: np.ndarray, **keys: object) -> Json:
    """A COCO result without a box."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**keys, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}


def noisy_instances(random: np.random.Generator, scene: Scene, image_id: Any) -> list[Json]:
    """The true things, grown and moved, some twice, some of another category or weak, in any order."""
    results = []
    for id_ in things_of(scene):
        for _ in range(int(random.choice([1, 1, 2]))):
            mask = np.roll(scene.ids == id_, random.integers(-2, 3, 2), (0, 1))
            for _ in range(int(random.integers(0, 7))):
                mask = mask | np.roll(mask, 1, 0) | np.roll(mask, 1, 1) | np.roll(mask, -1, 0) | np.roll(mask, -1, 1)
            known = [each for each in scene.categories.values() if each in THINGS]
            category = scene.categories[id_] if random.random() < 0.9 else int(random.choice(known))
            score = round(float(random.uniform(0.3, 1)), 1)  # some are equal
            results.append(as_result(mask, image_id=image_id, category_id=category, score=score))
    return [results[each] for each in random.permutation(len(results))]


# --- definitions ------------------------------------------------------------------------------------


def things_of(scene: Scene, things: tuple[int, ...] = THINGS) -> list[int]:
    """Ids of the segments that are things and no crowds."""
    return [id_ for id_, category in scene.categories.items() if category in things and id_ not in scene.crowds]


def as_coco(scenes: list[Scene], things: tuple[int, ...] = THINGS) -> Json:
    """The things as COCO annotations with boxes; images are numbered from 0."""
    annotations = [
        {
            "id": id_,
            "image_id": number,
            "category_id": scene.categories[id_],
            "bbox": box_of(scene.ids == id_),
            "iscrowd": 0,
        }
        for number, scene in enumerate(scenes)
        for id_ in things_of(scene, things)
    ]
    return {"images": [{"id": number} for number in range(len(scenes))], "annotations": annotations}


def quality(counts: dict[int, tuple[float, ...]], things: tuple[int, ...] = THINGS) -> tuple[float, ...]:
    """PQ, SQ, RQ and how many categories, from TP, FP, FN and IoU."""
    rows = [
        (iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0.0, tp / (tp + fp / 2 + fn / 2))
        for category, (tp, fp, fn, iou) in counts.items()
        if category in things and tp + fp + fn
    ]
    return (*np.mean(rows, axis=0).tolist(), len(rows)) if rows else (-1.0, -1.0, -1.0, 0)


def cell(pairs: Pairs, t_o: float, t_p: float, same_class: bool, things: tuple[int, ...] = THINGS) -> list[int]:
    """Which images are in it."""
    return crowded_images(as_coco([truth for truth, _ in pairs], things), t_o, t_p, "box", same_class)


def view(pairs: Pairs, t_o: float, same_class: bool) -> tuple[int, dict[int, tuple[float, ...]]]:
    """How many things are huddled; TP, FP, FN and the sum of IoU by category, the other things ignored."""
    coco = as_coco([truth for truth, _ in pairs])["annotations"]
    counts: dict[int, list[float]] = {category: [0, 0, 0, 0.0] for category in THINGS}
    number = 0
    for image, (truth, found) in enumerate(pairs):
        own = [each for each in coco if each["image_id"] == image]
        if not own:
            continue
        for category, (_, wrong, _, _) in defined_counts([(truth, found)]).items():
            if category in THINGS:
                counts[category][1] += wrong
        for each in own:
            if largest_overlap(each, own, "box", same_class) > t_o:
                number += 1
                partners = [id_ for id_, category in found.categories.items() if category == each["category_id"]]
                best = max([iou(truth, each["id"], found.ids == id_) for id_ in partners], default=0.0)
                counts[each["category_id"]][0 if best > 0.5 else 2] += 1
                counts[each["category_id"]][3] += best if best > 0.5 else 0
    return number, {category: tuple(each) for category, each in counts.items()}


def iou(truth: Scene, id_: int, mask: np.ndarray) -> float:
    """Of a true segment and a mask, void taken off the union."""
    own = truth.ids == id_
    union = (own | (mask & (truth.ids != 0))).sum()
    return float((own & mask).sum() / union)


def fused(size: tuple[int, int], results: list[Json], min_score: float) -> tuple[np.ndarray, list[int]]:
    """The published heuristic without stuff: whose each pixel is, -1 for nobody; and which results have some."""
    owner = np.full(size, -1)
    for row in sorted(range(len(results)), key=lambda row: -results[row]["score"]):
        mask = coco_mask.decode(results[row]["segmentation"]).astype(bool)
        if results[row]["score"] < min_score or not mask.any():
            continue
        if (mask & (owner >= 0)).sum() / mask.sum() <= 0.5:
            owner[mask & (owner < 0)] = row
    return owner, [int(row) for row in np.unique(owner) if row >= 0]


def losses(
    truth: Scene, results: list[Json], min_score: float, things: tuple[int, ...] = THINGS
) -> tuple[Scene, list[tuple[float, set[str]]]]:
    """The fused result, and of every true thing its largest overlap and what became of it."""
    owner, there = fused(truth.ids.shape, results, min_score)
    scene = Scene(owner + 1, {row + 1: results[row]["category_id"] for row in there})
    own = as_coco([truth], things)["annotations"]
    outcomes = []
    for each in own:
        rivals = [
            (iou(truth, each["id"], coco_mask.decode(result["segmentation"]).astype(bool)), row)
            for row, result in enumerate(results)
            if result["category_id"] == each["category_id"] and result["score"] >= min_score
        ]
        best, row = max(rivals, key=lambda rival: (rival[0], -rival[1]), default=(0.0, -1))
        after = any(
            iou(truth, each["id"], owner == row) > 0.5
            for row in there
            if results[row]["category_id"] == each["category_id"]
        )
        if best > 0.5:
            names = {"true", "found", "kept" if after else "cut" if row in there else "dropped"}
        else:
            names = {"true", *(["gained"] if after else [])}
        outcomes.append((largest_overlap(each, own, "box", False), names))
    return scene, outcomes


def binned(outcomes: list[tuple[float, set[str]]], above: float, up_to: float) -> Counter[str]:
    """How often each happened to things of these overlaps."""
    return Counter(name for overlap, names in outcomes if above < overlap <= up_to for name in names)
