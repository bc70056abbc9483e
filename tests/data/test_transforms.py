"""Resizing, flipping, normalising, padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from dsctool.config.loading import load_config
from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.augment import train_transform
from dsctool.data.semantic import draw_semantic_map
from dsctool.data.transforms import (
    Annotated,
    Flip,
    Resize,
    Sample,
    SampleInfo,
    Transform,
    collate,
    inference_transform,
    pad_images,
    resized,
)
from dsctool.structures import Targets

INFO = SampleInfo(1, (40, 60), "a.png")


def _transform(short: int = 80, long: int = 1000, flip: float = 0.0) -> Transform:
    resize = ResizeConfig(short_sides=(short,), long_side=long)
    return Transform([Resize(resize), Flip(flip)], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _annotated(image: Tensor | None = None) -> Annotated:
    masks = torch.zeros(1, 40, 60, dtype=torch.uint8)
    masks[0, 10:30, 20:50] = 1
    semantic = torch.full((40, 60), 9, dtype=torch.uint8)
    semantic[10:30, 20:50] = 2
    return Annotated(
        image=torch.zeros(3, 40, 60, dtype=torch.uint8) if image is None else image,
        boxes=torch.tensor([[20.0, 10.0, 50.0, 30.0]]),
        labels=torch.tensor([2]),
        masks=masks,
        crowd=torch.tensor([[0.0, 0.0, 5.0, 70.0]]),
        semantic=semantic,
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((427, 640), (800, 1199)), ((300, 1000), (400, 1333))],
)
def test_sizes_of_the_published_recipe(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(size, 800, 1333) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1000), st.integers(1000, 2000))
def test_resizing_keeps_within_both_limits(height: int, width: int, short: int, long: int) -> None:
    new = resized((height, width), short, long)
    assert min(new) >= 1
    assert max(new) <= long
    assert min(new) <= short


def test_everything_moves_together() -> None:
    image, targets = _transform(short=80)(_annotated())
    assert image.shape == (3, 80, 120)
    assert image.dtype == torch.float32
    assert targets.boxes.tolist() == [[40, 20, 100, 60]]
    assert targets.crowd is not None
    assert targets.crowd.tolist() == [[0, 0, 10, 80]], "boxes are clipped to the image"
    assert targets.masks is not None
    assert targets.masks.dtype == torch.bool
    assert targets.masks[0, 20:60, 40:100].all()
    assert targets.masks.sum() == 40 * 60
    assert type(targets.boxes) is type(targets.masks) is type(image) is torch.Tensor


def test_boxes_follow_the_factors_that_came_out_of_rounding() -> None:
    image = torch.zeros(3, 427, 640, dtype=torch.uint8)
    _, moved = _transform(800, 1333)(Annotated(image, torch.tensor([[0.0, 0.0, 640.0, 427.0]]), torch.tensor([0])))
    assert torch.allclose(moved.boxes, torch.tensor([[0.0, 0.0, 1199.0, 800.0]]))


def test_semantic_cells_take_every_eighth_pixel() -> None:
    sample = _annotated()
    assert sample.semantic is not None
    _, targets = _transform(short=40)(sample)
    assert targets.semantic is not None
    assert targets.semantic.dtype == torch.int64
    assert (targets.semantic == sample.semantic[::8, ::8]).all()


def test_flip_mirrors_image_boxes_masks_and_semantic() -> None:
    image = torch.arange(60, dtype=torch.uint8).expand(3, 40, 60).contiguous()
    flipped, targets = _transform(short=40, flip=1.0)(_annotated(image))
    assert (flipped == image.flip(-1)).all()
    assert targets.boxes.tolist() == [[10, 10, 40, 30]]
    assert targets.masks is not None
    assert targets.masks[0, 10:30, 10:40].all()
    assert targets.semantic is not None
    assert (targets.semantic[2, 2:5] == 2).all(), "pixels 16, 24, 32 of row 16"


def test_images_are_interpolated_as_opencv_does() -> None:
    image = torch.tensor([[0, 100]], dtype=torch.uint8).expand(3, 1, 2).contiguous()
    assert _transform(short=2).image(image)[0, 0].tolist() == [0, 25, 75, 100]


def test_images_are_normalised_in_rgb() -> None:
    config = DataConfig(test_resize=ResizeConfig(short_sides=(4,)))
    image = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4).contiguous()
    expected = (np.array([124, 116, 104]) - config.mean) / np.array(config.std)
    assert np.allclose(inference_transform(config).image(image)[:, 0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("sample", "allowed"), [("choice", {40, 80}), ("range", set(range(40, 81)))])
def test_scales_are_drawn(sample: str, allowed: set[int]) -> None:
    config = DataConfig(train_resize=ResizeConfig(short_sides=(40, 80), sample=sample))  # type: ignore[arg-type]
    transform = train_transform(config)
    torch.manual_seed(0)
    sides = {transform.image(torch.zeros(3, 20, 30, dtype=torch.uint8)).shape[1] for _ in range(40)}
    assert sides <= allowed
    assert len(sides) >= min(len(allowed), 10)


def test_a_range_includes_both_its_ends() -> None:
    resize = Resize(ResizeConfig(short_sides=(42, 40), sample="range"))
    torch.manual_seed(0)
    sides = [
        resize(Annotated(torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0))) for _ in range(40)
    ]
    assert {sample.size for sample in sides} == {(40, 60), (41, 62), (42, 63)}


@pytest.mark.parametrize(("end", "expected"), [("smallest", (400, 600)), ("largest", (889, 1333))])
def test_ends_of_the_sizes_that_detectors_is_trained_on(
    monkeypatch: pytest.MonkeyPatch, end: str, expected: tuple[int, int]
) -> None:
    """400 to 1200; of a 2:3 image the longer side, 1333, binds at 1200."""
    monkeypatch.setattr(torch, "randint", lambda low, high, _: torch.tensor(low if end == "smallest" else high - 1))
    resize = Resize(load_config("detectors_htc_r50_mstrain_40e_coco").data.train_resize)
    image = Annotated(torch.zeros(3, 60, 90, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0))
    assert resize(image).size == expected


def test_the_test_transform_draws_nothing() -> None:
    state = torch.get_rng_state()
    inference_transform(DataConfig()).image(torch.zeros(3, 20, 30, dtype=torch.uint8))
    assert torch.equal(state, torch.get_rng_state())


def test_images_without_instances_pass() -> None:
    empty = Annotated(
        image=torch.zeros(3, 40, 60, dtype=torch.uint8),
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        masks=torch.zeros(0, 40, 60, dtype=torch.uint8),
        crowd=torch.zeros(0, 4),
    )
    _, targets = _transform(flip=1.0)(empty)
    assert targets.boxes.shape == (0, 4)
    assert targets.masks is not None
    assert targets.masks.shape == (0, 80, 120)


@given(st.data())
def test_a_map_is_drawn_from_the_masks_that_are_left_as_if_it_had_been_drawn_before(data: st.DataObject) -> None:
    """Oracle: draw at full size, then resize, flip and take every eighth pixel; neighbours have almost one size."""
    height, width, short = (data.draw(st.integers(4, 70)) for _ in range(3))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    masks = (torch.rand(5, height, width, generator=random) < 0.5).to(torch.uint8)
    crowds = (torch.rand(1, height, width, generator=random) < 0.2).to(torch.uint8)
    labels, areas = torch.randperm(5, generator=random), masks.flatten(1).sum(1)
    full = draw_semantic_map(masks, labels, crowds, areas=areas, background=5)
    size = resized((height, width), short, 90)
    expected = functional.resize_mask(full, list(size)).flip(-1)[::8, ::8].long()
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    sample = Annotated(image, torch.zeros(5, 4), labels, masks, crowd_masks=crowds, background=5, areas=areas)
    assert torch.equal(_transform(short, 90, flip=1.0)(sample)[1].semantic, expected)


def test_a_step_that_removes_an_instance_removes_it_from_the_map() -> None:
    """What covers others can be put between the steps: the map is drawn last, and areas are counted anew."""

    def cover(sample: Annotated) -> Annotated:
        assert sample.masks is not None
        return replace(sample, masks=sample.masks * 0, areas=None)

    resize = Resize(ResizeConfig(short_sides=(80,), long_side=1000))
    sample = replace(_annotated(), semantic=None, background=3)
    plain = Transform([resize], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))(sample)[1].semantic
    covered = Transform([resize, cover], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))(sample)[1].semantic
    assert plain is not None
    assert covered is not None
    assert set(plain.flatten().tolist()) == {2, 3}
    assert set(covered.flatten().tolist()) == {3}


def test_padding_is_at_the_right_and_bottom() -> None:
    batch = pad_images([torch.ones(3, 40, 60), torch.ones(3, 50, 33)], 32)
    assert batch.tensor.shape == (2, 3, 64, 64)
    assert batch.sizes == [(40, 60), (50, 33)]
    assert batch.tensor[0].sum() == 3 * 40 * 60
    assert batch.tensor[1, :, :50, :33].eq(1).all()


def test_a_batch_has_one_canvas() -> None:
    samples = []
    for height, width in ((40, 60), (20, 90)):
        grid = (-(-height // 8), -(-width // 8))
        targets = Targets(
            boxes=torch.zeros(2, 4),
            labels=torch.zeros(2, dtype=torch.int64),
            masks=torch.ones(2, height, width, dtype=torch.bool),
            semantic=torch.zeros(grid, dtype=torch.int64),
        )
        samples.append(Sample(torch.ones(3, height, width), targets, INFO))
    images, targets_list, infos = collate(samples, 32)
    assert images.tensor.shape == (2, 3, 64, 96)
    assert infos == [INFO, INFO]
    for (height, width), targets in zip(images.sizes, targets_list, strict=True):
        assert targets.masks is not None
        assert targets.masks.shape == (2, 64, 96)
        assert targets.masks.sum() == 2 * height * width
        assert targets.semantic is not None
        assert targets.semantic.shape == (8, 12)
        assert (targets.semantic == 0).sum() == -(-height // 8) * -(-width // 8)
        assert ((targets.semantic == 0) | (targets.semantic == 255)).all()


def test_semantic_padding_equals_padding_before_subsampling() -> None:
    semantic = torch.randint(0, 9, (43, 61), dtype=torch.uint8)
    full = torch.full((64, 64), 255, dtype=torch.uint8)
    full[:43, :61] = semantic
    image = torch.zeros(3, 43, 61, dtype=torch.uint8)
    sample = Annotated(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), semantic=semantic)
    image, targets = _transform(short=43)(sample)
    _, (padded,), _ = collate([Sample(image, targets, INFO)], 32)
    assert padded.semantic is not None
    assert (padded.semantic == full[::8, ::8]).all()
