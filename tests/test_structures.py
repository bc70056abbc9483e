"""Finished results, as a person at a notebook uses them."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.data.records import Category
from dsctool.errors import DataError
from dsctool.structures import Instances
from dsctool.visualize.draw import Style, draw_instances

FISH = (Category(7, "fish"), Category(90, "shell"))
SIZE = (40, 60)
BOXES = torch.tensor([[2.0, 3.0, 20.5, 30.0], [10.0, 5.0, 50.0, 25.25], [30.0, 10.0, 55.0, 38.0]])


def bitmaps(boxes: Tensor = BOXES) -> Tensor:
    """The boxes as masks."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def plain() -> Instances:
    return Instances(boxes=BOXES, scores=torch.tensor([0.9, 0.6, 0.1]), labels=torch.tensor([1, 0, 1]), masks=bitmaps())


def found(*, masks: bool = True, picture: bool = True) -> Instances:
    plain_one = plain()
    return Instances(
        boxes=plain_one.boxes,
        scores=plain_one.scores,
        labels=plain_one.labels,
        masks=plain_one.masks if masks else None,
        size=SIZE,
        categories=FISH,
        image=torch.full((3, *SIZE), 90, dtype=torch.uint8) if picture else None,
    )


def test_four_tensors_are_enough() -> None:
    instances = plain()
    assert instances.size == SIZE
    assert instances.names == ["class 2", "class 1", "class 2"]
    assert repr(instances) == "Instances(3 in 40 x 60: 2 class 2, 1 class 1)"
    assert [result["category_id"] for result in instances.to_coco(1)] == [2, 1, 2]


def test_classes_by_name() -> None:
    assert found().names == ["shell", "fish", "shell"]
    assert found().counts() == {"shell": 2, "fish": 1}
    assert list(found().counts()) == ["shell", "fish"]


@pytest.mark.parametrize(
    ("instances", "shown"),
    [
        (found(), "Instances(3 in 40 x 60: 2 shell, 1 fish)"),
        (found()[:0], "Instances(0 in 40 x 60)"),
        (Instances(BOXES, torch.ones(3), torch.zeros(3, dtype=torch.int64)), "Instances(3: 3 class 1)"),
        (
            Instances(torch.zeros(7, 4), torch.ones(7), torch.arange(7)),
            "Instances(7: 1 class 1, 1 class 2, 1 class 3, 1 class 4, 1 class 5, ...)",
        ),
    ],
)
def test_short_in_print(instances: Instances, shown: str) -> None:
    assert repr(instances) == str(instances) == shown


def test_areas_are_of_masks_where_there_are_masks() -> None:
    instances = found()
    assert instances.masks is not None
    assert instances.areas.tolist() == [sum(map(sum, mask.tolist())) for mask in instances.masks]
    boxes_only = found(masks=False)
    assert boxes_only.areas.tolist() == [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in BOXES.tolist()]
    assert instances.areas.dtype == boxes_only.areas.dtype == torch.float32


def test_numpy() -> None:
    arrays = found().numpy()
    assert arrays.masks is not None
    assert (arrays.masks.shape, arrays.masks.dtype) == ((3, 40, 60), np.bool_)
    assert (arrays.boxes.dtype, arrays.labels.dtype) == (np.float32, np.int64)
    for array, tensor in zip(arrays, (BOXES, plain().scores, plain().labels, bitmaps()), strict=True):
        assert array is not None
        assert np.array_equal(array, tensor.numpy())
    assert found(masks=False).numpy().masks is None


# --- rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(2), [2]),
        (torch.tensor(1), [1]),
        (slice(0, 2), [0, 1]),
        ([2, 0], [2, 0]),
        ([], []),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, True, False]), [1]),
        (found().scores > 0.5, [0, 1]),
        (found().scores > 2, []),
    ],
)
@pytest.mark.parametrize("masks", [True, False])
def test_rows(rows: object, expected: list[int], masks: bool) -> None:
    whole = found(masks=masks)
    part = whole[rows]  # type: ignore[index]
    assert len(part) == len(expected)
    for index, row in enumerate(expected):
        assert torch.equal(part.boxes[index], whole.boxes[row])
        assert (part.scores[index], part.labels[index]) == (whole.scores[row], whole.labels[row])
        if part.masks is not None and whole.masks is not None:
            assert torch.equal(part.masks[index], whole.masks[row])
    assert (part.masks is not None) == masks
    assert part.categories == whole.categories
    assert part.size == SIZE
    assert part.image is whole.image


def test_one_after_the_other() -> None:
    assert [len(one) for one in found()] == [1, 1, 1]
    assert [name for one in found() for name in one.names] == found().names
    with pytest.raises(IndexError):
        found()[3]


def test_they_move_whole(device: torch.device) -> None:
    moved = found().to(device)
    assert {moved.boxes.device.type, moved.areas.device.type} == {device.type}
    assert (moved.size, moved.categories) == (SIZE, FISH)
    assert moved[moved.scores > 0.5].numpy().boxes.tolist() == BOXES[:2].tolist()
    assert moved.draw().size == (60, 40)
    assert moved.to_coco(3) == found().to_coco(3)


# --- COCO -------------------------------------------------------------------------------------------


def test_coco_results() -> None:
    results = json.loads(json.dumps(found().to_coco(image_id=42)))
    assert [result["image_id"] for result in results] == [42] * 3
    assert [result["category_id"] for result in results] == [90, 7, 90]
    assert [result["score"] for result in results] == [0.9, 0.6, 0.1]  # the shortest decimals
    assert results[0]["bbox"] == [2.0, 3.0, 18.5, 27.0]
    for result, mask in zip(results, bitmaps(), strict=True):
        assert np.array_equal(coco_mask.decode(result["segmentation"]), mask.numpy())
    assert all("segmentation" not in result for result in found(masks=False).to_coco(42))
    assert found()[:0].to_coco(42) == []


# --- pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_drawn_on_the_picture_that_was_kept(masks: bool) -> None:
    instances = found(masks=masks)
    assert instances.image is not None
    expected = draw_instances(
        instances.image,
        boxes=BOXES,
        names=["shell", "fish", "shell"],
        scores=instances.scores,
        masks=instances.masks,
    )
    assert np.array_equal(np.asarray(instances.draw()), np.asarray(expected))
    assert not np.array_equal(np.asarray(instances.draw()), np.full((*SIZE, 3), 90))
    assert np.array_equal(np.asarray(instances[:0].draw()), np.full((*SIZE, 3), 90))


def test_drawn_by_class_with_a_legend() -> None:
    drawn = found().draw(labels=False, color="class")
    assert drawn.width == SIZE[1]
    assert drawn.height > SIZE[0]
    style = Style(labels=False, color="class")
    instances = found()
    assert instances.image is not None
    expected = draw_instances(
        instances.image,
        boxes=BOXES,
        names=instances.names,
        masks=instances.masks,
        style=style,
        classes=[category.name for category in instances.categories],
    )
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_drawn_on_another_picture() -> None:
    other = Image.new("L", (60, 40), 90)
    instances = found(picture=False)
    assert np.array_equal(np.asarray(instances.draw(other)), np.asarray(found().draw()))
    assert np.array_equal(np.asarray(instances.draw(np.asarray(other))), np.asarray(found().draw()))


def test_no_picture_is_an_error() -> None:
    with pytest.raises(DataError, match=r"carry no picture: give one, as in draw\('photo.jpg'\)"):
        found(picture=False).draw()


def test_a_picture_of_another_size_is_an_error() -> None:
    with pytest.raises(DataError, match=r"\(60, 40\) pixels, these instances are in \(40, 60\)"):
        found().draw(Image.new("RGB", (40, 60)))


def test_notebooks_show_a_picture() -> None:
    shown = found()._repr_png_()
    assert shown is not None
    assert np.array_equal(np.asarray(Image.open(BytesIO(shown))), np.asarray(found().draw()))
    assert found(picture=False)._repr_png_() is None


def test_notebooks_show_large_pictures_small() -> None:
    image = torch.zeros(3, 900, 2048, dtype=torch.uint8)
    shown = Instances(BOXES, torch.ones(3), torch.zeros(3, dtype=torch.int64), size=(900, 2048), image=image)
    png = shown._repr_png_()
    assert png is not None
    assert Image.open(BytesIO(png)).size == (1024, 450)
