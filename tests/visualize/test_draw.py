"""Overlays: where paint goes, and that names stay apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.coco_results import Rle
from dsctool.visualize import labels
from dsctool.visualize.colors import PALETTE, assign_colors, text_color
from dsctool.visualize.draw import draw_instances
from dsctool.visualize.labels import Tag, draw_tags

BOXES = torch.tensor([[40.0, 60.0, 160.0, 180.0], [100.0, 100.0, 130.0, 130.0]])


def rles(boxes: Tensor, size: tuple[int, int]) -> list[Rle]:
    found = coco_mask.encode(np.asfortranarray(bitmaps(boxes, size).permute(1, 2, 0).numpy().astype(np.uint8)))
    return [Rle(size=list(rle["size"]), counts=rle["counts"].decode()) for rle in found]


def bitmaps(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def grey(height: int = 240, width: int = 320) -> Tensor:
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def test_only_the_surroundings_of_instances_change() -> None:
    drawn = draw_instances(grey(), boxes=BOXES, names=["a", "b"], scores=[0.9, 0.8], masks=rles(BOXES, (240, 320)))
    assert drawn.size == (320, 240)
    changed = (np.asarray(drawn) != 128).any(axis=2)
    assert not changed[:, 220:].any()
    assert not changed[200:].any()
    assert changed[70:170, 50:150].all()


def test_rle_bitmaps_and_pillow_images_draw_the_same() -> None:
    image = torch.randint(0, 255, (3, 240, 320), dtype=torch.uint8)
    names = ["a", "b"]
    drawn = draw_instances(image, boxes=BOXES, names=names, masks=rles(BOXES, (240, 320)))
    again = draw_instances(
        Image.fromarray(image.permute(1, 2, 0).numpy()),
        boxes=BOXES.tolist(),
        names=names,
        masks=bitmaps(BOXES, (240, 320)),
    )
    assert drawn.tobytes() == again.tobytes()


@pytest.mark.parametrize("with_masks", [False, True])
def test_instances_of_another_size_are_brought_to_the_images(with_masks: bool) -> None:
    half, full = (rles(boxes, size) for boxes, size in ((BOXES / 2, (120, 160)), (BOXES, (240, 320))))
    drawn = draw_instances(
        grey(), boxes=BOXES / 2, names=["a", "b"], masks=half if with_masks else None, size=(120, 160)
    )
    expected = draw_instances(grey(), boxes=BOXES, names=["a", "b"], masks=full if with_masks else None)
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_small_instance_lies_on_top_and_does_not_darken(order: list[int]) -> None:
    """Where two masks overlap, the pixel is the image with the smaller one's tint only."""
    boxes = BOXES[order]
    drawn = draw_instances(grey(), boxes=boxes, names=["", ""], masks=rles(boxes, (240, 320)))
    color = assign_colors(boxes.double().numpy())[order.index(1)]
    assert pixel(drawn, 120, 122) == pytest.approx([128 * 0.55 + value * 0.45 for value in color], abs=2)


def test_without_masks_boxes_are_drawn() -> None:
    drawn = draw_instances(grey(), boxes=BOXES, names=["", ""])
    color = assign_colors(BOXES.double().numpy())[0]
    assert pixel(drawn, 40, 150) == color
    assert pixel(drawn, 60, 150) == (128, 128, 128)


def test_nothing_found_leaves_the_image() -> None:
    image = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    drawn = draw_instances(image, boxes=torch.zeros(0, 4), names=[], scores=[], masks=[])
    assert np.array_equal(np.asarray(drawn), image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [(1, 1), (8, 5), (3, 500)])
def test_images_smaller_than_their_names(size: tuple[int, int]) -> None:
    boxes = torch.tensor([[0.0, 0.0, size[1], size[0]], [0.0, 0.0, 0.0, 0.0]])
    masks = rles(boxes, size)
    drawn = draw_instances(grey(*size), boxes=boxes, names=["something long"] * 2, scores=[1, 0.5], masks=masks)
    assert drawn.size == (size[1], size[0])


def test_an_empty_mask_is_left_out() -> None:
    empty = torch.zeros(1, 240, 320, dtype=torch.bool)
    drawn = draw_instances(grey(), boxes=BOXES[:1], names=["lost"], masks=empty)
    assert pixel(drawn, 100, 150) == (128, 128, 128)


def test_overlapping_instances_get_distant_colors() -> None:
    boxes = np.array([[0, 0, 50, 50]] * 8 + [[500, 500, 550, 550]], dtype=np.float64)
    colors = assign_colors(boxes)
    assert len(set(colors[:8])) == 8
    distances = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors[:8]) for b in colors[:i]]
    assert min(distances) > 60
    assert colors[8] not in colors[:8]


def test_more_neighbours_than_colors() -> None:
    assert len(assign_colors(np.tile([[0.0, 0.0, 10.0, 10.0]], (50, 1)))) == 50


@pytest.mark.parametrize("color", PALETTE)
def test_names_are_readable_on_their_color(color: tuple[int, int, int]) -> None:
    def luminance(rgb: tuple[int, int, int]) -> float:
        linear = [v / 255 / 12.92 if v < 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(color), luminance(text_color(color))])
    assert (light + 0.05) / (dark + 0.05) > 4.5


def test_names_do_not_cover_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rectangles: list[labels.Rectangle] = []
    place = labels._place

    def recording(*arguments: object) -> tuple[labels.Rectangle, int]:
        found = place(*arguments)  # type: ignore[arg-type]
        rectangles.append(found[0])
        return found

    monkeypatch.setattr(labels, "_place", recording)
    boxes = [(100.0 + 6 * i, 100.0 + 4 * i, 200.0 + 6 * i, 220.0 + 4 * i) for i in range(5)]
    draw_tags(Image.new("RGB", (500, 400)), [Tag("person 0.90", box, (255, 0, 0)) for box in boxes], font_size=13)
    assert len(rectangles) == 5
    for index, one in enumerate(rectangles):
        assert 0 <= one[0] < one[2] <= 500
        assert 0 <= one[1] < one[3] <= 400
        assert all(labels._hidden([one], [other]) == 0 for other in rectangles[:index])
