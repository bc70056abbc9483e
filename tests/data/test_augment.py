"""Cutting and pasting, against slow definitions: every pixel by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsctool.config.augment_schema import ColorConfig, CopyPasteConfig, CropConfig, JitterConfig
from dsctool.config.loading import load_config, override_config
from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.augment import (
    CopyPaste,
    Crop,
    Jitter,
    Recolor,
    boxes_around,
    cut,
    paste,
    random_part,
    train_transform,
)
from dsctool.data.semantic import draw_semantic_map
from dsctool.data.transforms import Annotated, Flip, Resize, ResizeByOneFactor
from dsctool.errors import ConfigError
from dsctool.structures import mask_areas
from dsctool.terms import Size

few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10**6)
sides = st.integers(3, 20)


def painted(seed: int, size: Size, *, count: int = 4, crowds: int = 1, background: int | None = 9) -> Annotated:
    """Blocks over each other, disjoint by painting; exact boxes, a file's map, and crowds of their own pixels."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    owner = torch.full(size, -1)
    for index in range(count + crowds):
        y, x = (int(torch.randint(0, side, (), generator=random)) for side in size)
        owner[y : y + 1 + height // 2, x : x + 1 + width // 2] = index
    masks = (owner == torch.arange(count + crowds)[:, None, None]).to(torch.uint8)
    there = [index for index in range(count) if masks[index].any()]
    crowd_rows = [index for index in range(count, count + crowds) if masks[index].any()]
    return Annotated(
        image=torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8),
        boxes=boxes_around(masks[there]),
        labels=torch.randint(0, 9, (len(there),), generator=random),
        masks=masks[there],
        crowd=boxes_around(masks[crowd_rows]),
        crowd_masks=masks[crowd_rows],
        semantic=torch.randint(0, 9, size, generator=random, dtype=torch.uint8),
        background=background,
        areas=mask_areas(masks[there]),
    )


def pixels_of(mask: Tensor) -> set[tuple[int, int]]:
    return {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]}


def box_of(pixels: set[tuple[int, int]]) -> list[float]:
    ys, xs = [y for y, _ in pixels], [x for _, x in pixels]
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def expected(
    sample: Annotated, shown: set[tuple[int, int]], shift: tuple[int, int], min_visible: float
) -> tuple[list[tuple[list[float], int, set[tuple[int, int]]]], list[set[tuple[int, int]]]]:
    """Box, label and pixels of every instance that stays, and the pixels of what is ignored, moved by ``shift``."""
    assert sample.masks is not None
    assert sample.crowd_masks is not None
    stay, ignored = [], []
    for mask, label in zip(sample.masks, sample.labels.tolist(), strict=True):
        pixels = pixels_of(mask)
        left = {(y - shift[0], x - shift[1]) for y, x in pixels & shown}
        if left and len(left) >= min_visible * len(pixels):
            stay.append((box_of(left), label, left))
        elif left:
            ignored.append(left)
    crowds = [{(y - shift[0], x - shift[1]) for y, x in pixels_of(mask) & shown} for mask in sample.crowd_masks]
    return stay, [left for left in crowds if left] + ignored


def check(found: Annotated, stay: Any, ignored: list[set[tuple[int, int]]]) -> None:
    assert found.masks is not None
    assert found.crowd is not None
    assert found.crowd_masks is not None
    columns = zip(found.boxes.tolist(), found.labels.tolist(), map(pixels_of, found.masks), strict=True)
    assert list(columns) == stay
    assert list(map(pixels_of, found.crowd_masks)) == ignored
    assert found.crowd.tolist() == [box_of(pixels) for pixels in ignored]


shares = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@few
@given(seeds, sides, sides, shares, st.data())
def test_a_cut_pixel_by_pixel(seed: int, height: int, width: int, min_visible: float, data: st.DataObject) -> None:
    sample = painted(seed, (height, width))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    size = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    found = cut(sample, (top, left), size, min_visible=min_visible)
    shown = {(y, x) for y in range(top, top + size[0]) for x in range(left, left + size[1])}
    check(found, *expected(sample, shown, (top, left), min_visible))
    assert found.size == size
    assert sample.semantic is not None
    assert found.semantic is not None
    for y, x in shown:
        assert torch.equal(found.image[:, y - top, x - left], sample.image[:, y, x])
        assert found.semantic[y - top, x - left] == sample.semantic[y, x]


@few
@given(seeds, seeds, sides, sides, shares)
def test_pasting_pixel_by_pixel(one: int, other: int, height: int, width: int, min_visible: float) -> None:
    sample, pasted = painted(one, (height, width)), painted(other, (height, width), count=2, crowds=0)
    found = paste(sample, pasted, min_visible=min_visible)
    assert pasted.masks is not None
    everywhere = {(y, x) for y in range(height) for x in range(width)}
    covered = set().union(*map(pixels_of, pasted.masks))
    stay, ignored = expected(sample, everywhere - covered, (0, 0), min_visible)
    over, _ = expected(replace(pasted, crowd_masks=pasted.masks[:0]), everywhere, (0, 0), 0)
    check(found, stay + over, ignored)
    assert sample.semantic is not None
    assert pasted.semantic is not None
    assert found.semantic is not None
    for y, x in everywhere:
        source = pasted if (y, x) in covered else sample
        assert torch.equal(found.image[:, y, x], source.image[:, y, x])
        assert found.semantic[y, x] == source.semantic[y, x]  # type: ignore[index]


@few
@given(seeds, sides, sides, sides)
def test_the_drawn_map_of_a_part_is_the_part_of_the_drawn_map(seed: int, height: int, width: int, side: int) -> None:
    """Also where masks overlap: what was drawn on top stays there, however much of it was cut off."""
    sample = painted(seed, (height, width))
    assert sample.masks is not None
    assert sample.areas is not None
    random = torch.Generator().manual_seed(seed)
    masks = sample.masks | (torch.rand(sample.masks.shape, generator=random) < 0.3).to(torch.uint8)
    sample = replace(sample, masks=masks, areas=mask_areas(masks), semantic=None)
    torch.manual_seed(seed)
    found = random_part(sample, (side, side), min_visible=0)
    torch.manual_seed(seed)
    drawn = _drawn(sample)
    expected_map = random_part(replace(sample, semantic=drawn), (side, side), min_visible=0).semantic
    assert torch.equal(_drawn(found), expected_map)  # type: ignore[arg-type]


@few
@given(seeds, seeds, sides, sides)
def test_the_drawn_map_shows_what_was_pasted(one: int, other: int, height: int, width: int) -> None:
    sample, pasted = painted(one, (height, width)), painted(other, (height, width), count=2, crowds=0)
    found, under, over = (_drawn(each) for each in (paste(sample, pasted, min_visible=0), sample, pasted))
    assert pasted.masks is not None
    assert torch.equal(found, torch.where(pasted.masks.bool().any(0), over, under))


def _drawn(sample: Annotated) -> Tensor:
    assert sample.masks is not None
    assert sample.crowd_masks is not None
    assert sample.areas is not None
    return draw_semantic_map(
        sample.masks, sample.labels, sample.crowd_masks, areas=sample.areas, background=sample.background or 0
    )


def test_what_is_ignored_is_ignored_by_the_drawn_map_too() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[0, :, :10] = 1
    sample = Annotated(
        image=torch.zeros(3, 16, 16, dtype=torch.uint8), boxes=boxes_around(masks), labels=torch.tensor([3]),
        masks=masks, crowd=torch.zeros(0, 4), crowd_masks=masks[:0], background=7,
    )  # fmt: skip
    targets = cut(sample, (0, 8), (16, 8), min_visible=0.5).targets()
    assert targets.boxes.shape == (0, 4)
    assert targets.crowd.tolist() == [[0, 0, 2, 16]]  # type: ignore[union-attr]
    assert targets.semantic.tolist() == [[255], [255]]  # type: ignore[union-attr]


def test_an_instance_that_loses_nothing_keeps_its_annotated_box() -> None:
    sample = painted(3, (20, 20), count=1, crowds=0)
    sample = replace(sample, boxes=sample.boxes + torch.tensor([0.25, 0.5, -0.25, 0.0]))
    found = cut(sample, (0, 0), (20, 20), min_visible=0)
    assert torch.equal(found.boxes, sample.boxes)


def test_a_box_that_its_mask_is_not_in_is_drawn_anew() -> None:
    sample = painted(3, (20, 20), count=1, crowds=0)
    found = cut(replace(sample, boxes=sample.boxes - 100), (0, 0), (20, 20), min_visible=0)
    assert torch.equal(found.boxes, sample.boxes)


def boxes_only(boxes: list[list[float]], size: Size = (40, 60)) -> Annotated:
    image = torch.zeros(3, *size, dtype=torch.uint8)
    return Annotated(image, torch.tensor(boxes), torch.arange(len(boxes)), crowd=torch.tensor([[0.0, 0.0, 12.0, 12.0]]))


def test_boxes_without_masks_are_clipped() -> None:
    sample = boxes_only([[0, 0, 10.5, 20], [12, 12, 20, 20], [0, 0, 20, 40], [8, 0, 10.2, 30]])
    found = cut(sample, (10, 10), (20, 20), min_visible=0.3)
    assert found.boxes.tolist() == [[2, 2, 10, 10]]
    assert found.labels.tolist() == [1], "others: narrower than a pixel, too little of it, narrower than a pixel"
    assert found.crowd is not None
    assert found.crowd.tolist() == [[0, 0, 2, 2], [0, 0, 10, 20]]


@few
@given(seeds, st.integers(8, 40), st.integers(8, 40), st.booleans())
def test_truth_after_everything(seed: int, height: int, width: int, drawn: bool) -> None:
    """No instance without pixels, boxes tight around those that were cut, masks disjoint as they were."""
    config = DataConfig(
        jitter=JitterConfig(scale=(0.2, 2.5), size=32, min_visible=0.1),
        color=ColorConfig(),
        copy_paste=CopyPasteConfig(probability=1, instances=(1, 3)),
    )
    torch.manual_seed(seed)
    sample = painted(seed, (height, width))
    if drawn:
        sample = replace(sample, semantic=None)
    for step in train_transform(config, another=lambda: painted(seed + 1, (width, height))).steps:
        sample = step(sample)
    assert max(sample.size) <= 32
    targets, masks, crowds = sample.targets(), sample.masks, sample.crowd_masks
    assert masks is not None
    assert crowds is not None
    assert sample.areas is not None
    assert len(sample.boxes) == len(sample.labels) == len(masks) == len(sample.areas)
    assert masks.flatten(1).any(1).all()
    assert all(not (a & b).any() for a, b in combinations([*masks, *crowds], 2))
    assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
    tight = boxes_around(masks)
    assert (targets.boxes[:, :2] <= tight[:, :2] + 1).all(), "masks take the nearest pixel, boxes their share of it"
    assert (targets.boxes[:, 2:] >= tight[:, 2:] - 1).all()


def test_nothing_is_augmented_unless_it_is_asked_for() -> None:
    steps = train_transform(DataConfig(), another=lambda: painted(0, (8, 8))).steps
    assert [type(step) for step in steps] == [Resize, Flip]
    for name in ("detectors_htc_r50_1x_coco", "dsc_r50_fpn_20e_coco", "htc_tiny"):
        data = load_config(name).data
        assert (data.jitter, data.crop, data.color, data.copy_paste, data.train_canvas) == (None, None, None, None, 0)


def test_jitter_draws_every_scale_of_its_range_and_every_place() -> None:
    image = torch.arange(40 * 60).view(1, 40, 60).remainder(251).to(torch.uint8).expand(3, 40, 60).contiguous()
    sample = Annotated(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    jitter = Jitter(JitterConfig(scale=(0.5, 2.0), size=60), resize=Resize)
    torch.manual_seed(0)
    sizes = [jitter(sample).size for _ in range(200)]
    assert (20, 30) <= min(sizes) <= (22, 33)
    assert max(sizes) == (60, 60)
    assert all(abs(width - 1.5 * height) <= 1 for height, width in sizes if width < 60), "the aspect ratio stays"
    corners = {tuple(Crop(CropConfig(size=38))(sample).image[0, 0, :2].tolist()) for _ in range(200)}
    assert len(corners) > 40, "of 3 x 23 places"


def test_a_side_that_is_no_longer_than_the_crop_stays() -> None:
    assert Crop(CropConfig(size=30))(painted(0, (20, 50))).size == (20, 30)


def test_mmdet1_boxes_follow_its_factor_into_the_canvas() -> None:
    """First and last pixel times the factor; what is cut off is cut off of them too."""
    config = DataConfig(jitter=JitterConfig(scale=(2.0, 2.0), size=60), flip=0)
    sample = boxes_only([[20, 10, 30, 20]])
    (jitter, _) = train_transform(config, "mmdet1").steps
    torch.manual_seed(1)
    moved = jitter(sample)
    torch.manual_seed(1)
    plain = train_transform(config).steps[0](sample)
    assert plain.boxes[0, 2:].tolist() == (moved.boxes[0, 2:] + 1).tolist()
    assert plain.boxes[0, :2].tolist() == moved.boxes[0, :2].tolist()
    assert isinstance(ResizeByOneFactor(ResizeConfig()), Resize)


@pytest.mark.parametrize(("fewest", "most", "there", "counts"), [(1, 2, 4, {1, 2}), (3, 9, 2, {2}), (1, 9, 0, {0})])
def test_so_many_are_pasted(fewest: int, most: int, there: int, counts: set[int]) -> None:
    """Any number of the range, as far as the other image has them; never its crowds."""
    masks = torch.zeros(there + 1, 12, 12, dtype=torch.uint8)
    for index in range(there + 1):
        masks[index, 2 * index] = 1
    image = torch.full((3, 12, 12), 200, dtype=torch.uint8)
    other = Annotated(
        image, boxes_around(masks[1:]), torch.arange(there), masks[1:], boxes_around(masks[:1]), masks[:1]
    )
    empty = Annotated(image * 0, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks[:0], torch.zeros(0, 4))
    step = CopyPaste(CopyPasteConfig(probability=1, instances=(fewest, most)), lambda: other)
    torch.manual_seed(0)
    found = [step(empty) for _ in range(30)]
    assert {len(sample.labels) for sample in found} == counts
    for sample in found:
        assert int((sample.image[0] > 0).sum()) == 12 * len(sample.labels)
        assert sample.crowd.shape == (0, 4)  # type: ignore[union-attr]


def test_some_images_get_nothing() -> None:
    sample = painted(0, (20, 20))
    torch.manual_seed(0)
    step = CopyPaste(CopyPasteConfig(probability=0.3), lambda: painted(1, (20, 20)))
    same = sum(step(sample) is sample for _ in range(200))
    assert 110 < same < 170


@pytest.mark.parametrize("size", [(10, 50), (50, 10), (10, 10), (50, 50)])
def test_another_size_is_moved_into_the_image_or_around_it(size: Size) -> None:
    masks = torch.ones(1, *size, dtype=torch.uint8)
    other = Annotated(
        torch.full((3, *size), 200, dtype=torch.uint8),
        boxes_around(masks),
        torch.tensor([1]),
        masks,
        boxes_around(masks),
    )
    torch.manual_seed(0)
    step = CopyPaste(CopyPasteConfig(probability=1, min_visible=0), lambda: other)
    found = [step(painted(0, (24, 30), count=0, crowds=0)) for _ in range(40)]
    height, width = min(size[0], 24), min(size[1], 30)
    boxes = torch.cat([sample.boxes for sample in found])
    assert {tuple(box) for box in (boxes[:, 2:] - boxes[:, :2]).tolist()} == {(width, height)}
    assert len(set(boxes[:, 0].tolist())) > 5 or width == 30
    assert len(set(boxes[:, 1].tolist())) > 5 or height == 24


def test_colours_change_and_nothing_else_does() -> None:
    sample = painted(0, (20, 20))
    torch.manual_seed(0)
    found = Recolor(ColorConfig(brightness=0.5))(sample)
    assert not torch.equal(found.image, sample.image)
    assert found.image.dtype == torch.uint8
    assert replace(found, image=sample.image) == sample


def test_the_shipped_base_is_the_papers_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: [htc_r50_fpn_1x_coco, _base_/lsj.yaml]\n")
    data = load_config(tmp_path / "mine.yaml").data
    assert data.jitter == JitterConfig(scale=(0.1, 2.0), size=1024)
    assert data.copy_paste is not None
    assert (data.train_canvas, data.train_side) == (1024, 1024)
    assert override_config(load_config("htc_tiny"), ["data.crop.size=100"]).data.train_side == 100


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("cascade_rcnn_r50_fpn_1x_coco", "data.copy_paste={}", "needs masks"),
        ("htc_tiny", "data.jitter.scale=[2, 1]", "scale names the smallest factor first"),
        ("htc_tiny", "data.copy_paste.instances=[3, 1]", "instances names the fewest first"),
        ("htc_tiny", "data.crop={}", "data.crop.size: required"),
        ("htc_tiny", "data={jitter: {}, crop: {size: 64}}", "leave out crop, or jitter"),
        ("htc_tiny", "data.color.hue=0.6", "at most 0.5"),
    ],
)
def test_what_cannot_be_is_refused(name: str, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override_config(load_config(name), [override])
    assert said in str(caught.value)
