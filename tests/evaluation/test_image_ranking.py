"""Which images come first, against the definitions written out, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dsctool.errors import DataError
from dsctool.evaluation.image_ranking import FoundInImages, rank_images

SIDE, IMAGES = 40, 6
CLASSES = [{"id": 4, "name": "cell"}, {"id": 9, "name": "seed"}]


def table(names: str = "{}.png") -> list[dict[str, Any]]:
    return [{"id": i, "file_name": names.format(i), "width": SIDE, "height": SIDE} for i in range(1, IMAGES + 1)]


def results(seed: int, *, shift: int = 0) -> list[dict[str, Any]]:
    """Squares on a grid, so that those of one result hardly overlap; image 6 has none. shift: of some of them."""
    rng, found = np.random.default_rng(seed), []
    for image in range(1, IMAGES):
        for row, column in np.ndindex(3, 3):
            if rng.random() < 0.3:
                continue
            bitmap = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
            x, y = 12 * column + 1 + shift * int(rng.integers(2)), 12 * row + 1
            bitmap[y : y + 10, x : x + 10] = 1
            rle = coco_mask.encode(bitmap)
            mask = {"size": rle["size"], "counts": rle["counts"].decode()}
            score = float(rng.choice([0.02, 0.2, 0.5, 0.8, 0.99]))
            found.append({"image_id": image, "category_id": int(rng.choice([4, 9])), "score": score})
            found[-1] |= {"bbox": [x, y, 10, 10], "segmentation": mask}
    return found


def slow_uncertainty(found: list[dict[str, Any]], image: int) -> float:
    scores = [each["score"] for each in found if each["image_id"] == image and each["score"] >= 0.1]
    return sum(min(score, 1 - score) for score in scores) / max(1, sum(scores))


def slow_disagreement(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], image: int) -> float:
    kept = [[e for e in side if e["image_id"] == image and e["score"] >= 0.3] for side in (ours, theirs)]
    pairs = []
    for one in kept[0]:
        for other in kept[1]:
            iou = coco_mask.iou([one["segmentation"]], [other["segmentation"]], [0])[0, 0]
            if one["category_id"] == other["category_id"] and iou >= 0.5:
                pairs.append(iou)
    total = (len(kept[0]) + len(kept[1])) / 2
    return 1 - sum(pairs) / total if total else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_uncertainty_is_as_defined(seed: int) -> None:
    found = results(seed)
    ranked = rank_images(FoundInImages.of(table(), CLASSES, found))
    assert [image.score for image in ranked] == sorted((image.score for image in ranked), reverse=True)
    for image in ranked:
        assert image.score == image.uncertainty == pytest.approx(slow_uncertainty(found, int(image.id)), abs=1e-4)
        assert image.instances == sum(e["image_id"] == image.id and e["score"] >= 0.3 for e in found)
        assert image.disagreement is None
    assert ranked[-1].id == 6
    assert ranked[-1].score == 0


@pytest.mark.parametrize("shift", [0, 3])
def test_disagreement_is_as_defined(shift: int) -> None:
    """Whatever the order of images and the ids of images and classes of the other one."""
    ours, theirs = results(0), results(1, shift=shift)
    renamed = [{**e, "image_id": 100 - e["image_id"], "category_id": 13 - e["category_id"]} for e in theirs]
    images = [{**each, "id": 100 - each["id"]} for each in reversed(table("elsewhere/{}.png"))]
    classes = [{"id": 9, "name": "cell"}, {"id": 4, "name": "seed"}]
    first, second = FoundInImages.of(table(), CLASSES, ours), FoundInImages.of(images, classes, renamed)
    ranked = rank_images(first, second)
    assert len(ranked) == IMAGES
    for image in ranked:
        expected = slow_disagreement(ours, theirs, int(image.id))
        assert image.score == image.disagreement == pytest.approx(expected, abs=1e-4)
        assert image.against == sum(e["image_id"] == image.id and e["score"] >= 0.3 for e in theirs)
    assert {image.score for image in rank_images(first, first)} == {0.0}


def test_images_that_only_one_knows_are_left_out() -> None:
    first = FoundInImages.of(table(), CLASSES, results(0))
    fewer = FoundInImages.of(table()[:2], CLASSES, [])
    assert {image.id for image in rank_images(first, fewer)} == {1, 2}
    assert {image.score for image in rank_images(first, fewer)} == {1.0}
    with pytest.raises(DataError, match="no image in common"):
        rank_images(first, FoundInImages.of(table("x{}.png"), CLASSES, []))


def test_files_of_anybody(tmp_path: Path) -> None:
    """Without a table, images and classes are called by their ids."""
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(results(0)))
    alone = rank_images(FoundInImages.read(path))
    assert {image.file_name for image in alone} == {"1", "2", "3", "4", "5"}
    (tmp_path / "gt.json").write_text(json.dumps({"images": table(), "annotations": [], "categories": CLASSES}))
    named = rank_images(FoundInImages.read(path, tmp_path / "gt.json"))
    assert [image.score for image in named[:5]] == [image.score for image in alone]
    assert named[0].file_name == f"{alone[0].file_name}.png"
    (tmp_path / "gt.json").write_text(json.dumps({"images": table()[:1], "annotations": [], "categories": CLASSES}))
    with pytest.raises(DataError, match=r"image id 2 is not in .*gt\.json"):
        FoundInImages.read(path, tmp_path / "gt.json")
    path.write_text("{}")
    with pytest.raises(DataError, match="no COCO results file"):
        FoundInImages.read(path)
