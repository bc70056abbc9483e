"""Training images resized and flipped as mmdet 1.x did, box by box."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsctool.config.loading import load_config
from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.augment import train_transform
from dsctool.data.transforms import Annotated, ResizeByOneFactor
from dsctool.engine.sets import open_data
from tests.ops import mmdet1
from tests.ops.mmdet1 import half_open, inclusive
from tests.ops.test_geometry import some_boxes

SIZE = (427, 640)


def annotated(boxes: Tensor) -> Annotated:
    """An image with inclusive ``boxes``, the first of them a crowd too."""
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = (torch.rand(len(boxes), *SIZE, generator=torch.Generator().manual_seed(0)) > 0.5).byte()
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Annotated(image, half_open(boxes), labels, masks, crowd=half_open(boxes[:1]))


@pytest.mark.parametrize(("short", "long"), [(800, 1333), (300, 400), (61, 1333)])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_follow_one_factor_and_the_flip(short: int, long: int, flip: float) -> None:
    boxes = some_boxes(12, size=SIZE)
    boxes[1] = torch.tensor([-3.0, -2.0, 639.0, 428.0])  # reaches out
    config = DataConfig(train_resize=ResizeConfig(short_sides=(short,), long_side=long), flip=flip)
    image, targets = train_transform(config, "mmdet1")(annotated(boxes))
    expected = [mmdet1.resize(box, SIZE, short, long) for box in boxes.tolist()]
    expected = [mmdet1.flip(box, image.shape[-1]) for box in expected] if flip else expected
    torch.testing.assert_close(inclusive(targets.boxes), torch.tensor(expected), rtol=0, atol=1e-3)
    assert targets.crowd is not None
    torch.testing.assert_close(targets.crowd, targets.boxes[:1])
    plain_image, plain = train_transform(config)(annotated(boxes))
    assert torch.equal(image, plain_image), "pixels are resized as ever"
    assert torch.equal(targets.masks, plain.masks)  # type: ignore[arg-type]
    assert not torch.equal(targets.boxes, plain.boxes)


def test_boxes_of_less_than_a_pixel_count_as_one() -> None:
    """mmdet 1.x left them out; they must not end before they begin."""
    box = torch.tensor([[20.0, 10.0, 20.2, 30.0]])
    resize = ResizeByOneFactor(ResizeConfig(short_sides=(854,), long_side=2000))
    moved = resize(Annotated(torch.zeros(3, *SIZE, dtype=torch.uint8), box, torch.tensor([0])))
    assert moved.boxes.tolist() == [[40.0, 20.0, 41.0, 59.0]]
    assert moved.crowd is None


def test_a_run_trains_on_the_boxes_of_its_geometry(synthetic_root: Path) -> None:
    words = ["data.workers=0", "data.flip=0", "train.eval_interval=0", "data.train_resize.short_sides=[111]"]
    current, old = (
        open_data(load_config("htc_tiny", [*words, f"model.geometry={name}"]), synthetic_root).train_set[0]
        for name in ("current", "mmdet1")
    )
    assert torch.equal(current.image, old.image)
    assert not torch.equal(current.targets.boxes, old.targets.boxes)
    assert (current.targets.boxes - old.targets.boxes).abs().max() < 1.5
