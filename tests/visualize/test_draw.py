"""Overlays: where paint goes, and that names stay apart."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.coco_results import Rle
from dsctool.visualize import draw, labels
from dsctool.visualize.colors import PALETTE, assign_colors, class_colors, text_color
from dsctool.visualize.draw import Style, draw_instances
from dsctool.visualize.labels import Entry, Tag, draw_tags, with_legend

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


# --- crowds -----------------------------------------------------------------------------------------


def shown_tags(monkeypatch: pytest.MonkeyPatch, boxes: np.ndarray, names: list[str]) -> list[tuple[Any, Tag]]:
    """The rectangles of the tags that are drawn over boxes, and what they say."""
    drawn: list[tuple[Any, Tag]] = []
    monkeypatch.setattr(labels, "_draw", lambda _, rectangle, tag, size: drawn.append((rectangle, tag)))
    draw_instances(grey(400, 400), boxes=boxes, names=names, scores=[0.9] * len(names))
    return drawn


def grid(side: float, step: float, count: int) -> np.ndarray:
    places = [(step * (i % 20), step * (i // 20)) for i in range(count)]
    return np.array([[x, y, x + side, y + side] for x, y in places])


@pytest.mark.parametrize("side", [4, 10, 19, 40, 90])
@pytest.mark.parametrize("count", [3, 120])
def test_tags_are_smaller_than_what_they_name(monkeypatch: pytest.MonkeyPatch, side: float, count: int) -> None:
    drawn = shown_tags(monkeypatch, grid(side, 20, count), ["cell"] * count)
    for (x1, y1, x2, y2), tag in drawn:
        width, height = tag.box[2] - tag.box[0], tag.box[3] - tag.box[1]
        assert (x2 - x1) * (y2 - y1) <= width * height / 2
        assert max(x2 - x1, y2 - y1) <= max(width, height)
    for index, (one, _) in enumerate(drawn):
        area = (one[2] - one[0]) * (one[3] - one[1])
        earlier = [other for other, _ in drawn[index + 1 :]]
        assert labels._hidden([one], earlier)[0] <= labels.CROSSED * area + 1e-6
    if side == 90:
        assert drawn, "there is room for some"
    if side <= 19:
        assert not drawn


def test_tags_become_shorter_before_they_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[10, 10, 190, 190], [200, 200, 230, 230], [300, 300, 310, 310]], dtype=np.float64)
    drawn = {tag.box[0]: tag.text for _, tag in shown_tags(monkeypatch, boxes, ["cell"] * 3)}
    assert drawn == {10: "cell 0.90", 200: "cell"}


def test_without_names() -> None:
    masks = rles(BOXES, (240, 320))
    bare = draw_instances(grey(), boxes=BOXES, names=["a", "b"], masks=masks, style=Style(labels=False))
    assert np.array_equal(bare, draw_instances(grey(), boxes=BOXES, names=["", ""], masks=masks, style=Style(False)))
    named = draw_instances(grey(), boxes=BOXES, names=["a", "b"], masks=masks)
    assert not np.array_equal(bare, named)


def test_classes_have_colors_of_their_own_in_every_picture() -> None:
    """Whatever else is in it; the legend below has the same ones, and the counts."""
    classes = ["date", "fig", "nut"]
    colors = class_colors(classes)
    assert len(set(class_colors([str(number) for number in range(60)]).values())) == 60
    for names in (["nut", "nut"], ["date", "nut"]):
        drawn = draw_instances(
            grey(), boxes=BOXES, names=names, masks=rles(BOXES, (240, 320)), classes=classes,
            style=Style(labels=False, color="class"),
        )  # fmt: skip
        assert drawn.width == 320
        assert drawn.height > 240
        inside = [pixel(drawn, 60, 150), pixel(drawn, 115, 115)]
        for name, found in zip(names, inside, strict=True):
            assert found == pytest.approx([128 * 0.55 + value * 0.45 for value in colors[name]], abs=2)
        legend = {pixel(drawn, x, y) for x in range(320) for y in range(240, drawn.height)}
        assert {colors[name] for name in classes} & legend == {colors[name] for name in names}


def test_the_legend_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[list[Entry]] = []
    monkeypatch.setattr(draw, "with_legend", lambda canvas, given, font_size: entries.append(given) or canvas)
    for color in ("class", "instance"):
        style = Style(color=color)
        draw_instances(grey(), boxes=grid(9, 20, 5), names=["a", "b", "b", "a", "b"], style=style)
        draw_instances(grey(), boxes=BOXES, names=["a", "a"], style=style)
    assert [[entry.text for entry in each] for each in entries] == [["b 3", "a 2", "5 in all"], ["a 2"]] * 2
    assert entries[0][0].color == class_colors(["a", "b"])["b"]
    assert entries[0][-1].color is None
    assert {entry.color for each in entries[2:] for entry in each} == {None}


def test_a_legend_keeps_the_picture_and_its_width() -> None:
    picture = draw.pillow(torch.randint(0, 255, (3, 30, 40), dtype=torch.uint8))
    entries = [Entry(f"a very long name {number}", PALETTE[number]) for number in range(5)]
    drawn = with_legend(picture, entries, font_size=10)
    assert drawn.width == 40
    assert drawn.crop((0, 0, 40, 30)).tobytes() == picture.tobytes()
    for number, entry in enumerate(entries):
        rows = np.asarray(drawn)[30 + 17 * number : 30 + 17 * (number + 1) + 5]
        assert (rows == entry.color).all(axis=2).any(), "each has a row"


@pytest.mark.parametrize("color", ["class", "instance"])
def test_outlines_of_neighbours_stay_apart(color: Literal["class", "instance"]) -> None:
    """Between two masks that share a border there is a darker line, and on both sides of it each one's own colour."""
    boxes = torch.tensor([[20.0, 20.0, 60.0, 80.0], [60.0, 20.0, 100.0, 80.0]])
    style = Style(labels=False, color=color)
    drawn = draw_instances(grey(120, 160), boxes=boxes, names=["a", "a"], masks=rles(boxes, (120, 160)), style=style)
    colors = [class_colors(["a"])["a"]] * 2 if color == "class" else assign_colors(boxes.double().numpy())
    assert (colors[0] == colors[1]) == (color == "class")
    row = np.asarray(drawn)[50].astype(int)
    left, right = (np.abs(row - each).sum(axis=1) for each in colors)
    assert left[55:60].min() < 40
    assert right[60:65].min() < 40
    border = row[59:61].sum(axis=1).min()
    assert border < row[55:60][left[55:60].argmin()].sum() - 60
    assert border < row[60:65][right[60:65].argmin()].sum() - 60


def test_outlines_are_thin_where_instances_are_small() -> None:
    assert draw.thinned(3.0, 100_000) == 3.0
    assert draw.thinned(3.0, 400) == pytest.approx(1.6)
    assert draw.thinned(3.0, 4) == 0.8
