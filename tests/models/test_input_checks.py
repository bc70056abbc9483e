"""What no loss could learn from, and what is no batch of normalised images, is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dsctool.errors import DataError
from dsctool.structures import Targets
from tests.models.tiny import one_box, tiny_detector

CANVAS = (64, 96)
FAULTS = {
    "no width": ([[8.0, 10.0, 8.0, 50.0]], "box 1, .*has no width or no height"),
    "no height": ([[8.0, 10.0, 40.0, 10.0]], "box 1, .*has no width or no height"),
    "corners exchanged": ([[40.0, 10.0, 8.0, 50.0]], "has no width or no height"),
    "not a number": ([[8.0, float("nan"), 40.0, 50.0]], "has no finite coordinates"),
    "right of the canvas": ([[80.0, 10.0, 120.0, 50.0]], r"leaves the canvas.*96 x 64 canvas \(width x height\)"),
    "above the canvas": ([[8.0, -9.0, 40.0, 50.0]], "leaves the canvas"),
}


def with_box(box: list[list[float]], label: int = 1) -> Targets:
    """A sound annotation of one instance, and a second instance with ``box``."""
    sound = one_box(*CANVAS, count=1)
    assert sound.masks is not None
    return replace(
        sound,
        boxes=torch.cat([sound.boxes, torch.tensor(box)]),
        labels=torch.cat([sound.labels, torch.tensor([label])]),
        masks=sound.masks.repeat(2, 1, 1),
    )


@pytest.mark.parametrize("name", ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_box_is_refused_with_image_and_box(name: str, fault: str, device: torch.device) -> None:
    box, message = FAULTS[fault]
    model = tiny_detector(name).to(device).train()
    targets = [one_box(*CANVAS).to(device), with_box(box).to(device)]
    with pytest.raises(DataError, match=rf"targets\[1\]: .*{message}"):
        model.losses(torch.randn(2, 3, *CANVAS, device=device), targets)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_an_unknown_class_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=rf"of class {label}, has an unknown class\. .*classes 0 to 2"):
        tiny_detector().losses(torch.randn(1, 3, *CANVAS), [with_box([[8.0, 10.0, 40.0, 50.0]], label)])


def test_every_broken_rule_is_named() -> None:
    with pytest.raises(DataError, match="has no width or no height and leaves the canvas and has an unknown class"):
        tiny_detector().losses(torch.randn(1, 3, *CANVAS), [with_box([[200.0, 10.0, 200.0, 50.0]], 9)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": torch.zeros(1, *CANVAS, dtype=torch.bool)}, r"masks must be \(2, 64, 96\).*not \(1, 64, 96\)"),
        ({"masks": torch.zeros(2, 64, 90, dtype=torch.bool)}, r"not \(2, 64, 90\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels \(G,\) int64, not \(2, 4\) and \(3,\) int64"),
        ({"labels": torch.zeros(2)}, r"not \(2, 4\) and \(2,\) float32"),
        ({"semantic": torch.zeros(9, 12, dtype=torch.int64)}, r"semantic map is \(9, 12\), .* grid is \(8, 12\)"),
        ({"semantic": torch.full((8, 12), 77)}, "holds classes above 3, the branch's last"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes must be \(G, 4\)"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tiny_detector().losses(torch.randn(1, 3, *CANVAS), [replace(one_box(*CANVAS), **change)])


def test_annotation_tools_may_round() -> None:
    losses = tiny_detector().losses(torch.randn(1, 3, *CANVAS), [with_box([[-0.6, -0.6, 96.6, 64.6]])])
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_a_target_for_every_image(count: int) -> None:
    with pytest.raises(DataError, match=rf"there are 2 images and {count} targets"):
        tiny_detector().losses(torch.randn(2, 3, *CANVAS), [one_box(*CANVAS)] * count)


def test_masks_of_255_are_masks() -> None:
    """As OpenCV draws them."""
    model, images, targets = tiny_detector(), torch.randn(1, 3, *CANVAS), one_box(*CANVAS)
    assert targets.masks is not None
    found = []
    for masks in (targets.masks, targets.masks.to(torch.uint8) * 255):
        torch.manual_seed(0)
        found.append({k: v.item() for k, v in model.losses(images, [replace(targets, masks=masks)]).items()})
    assert found[0] == found[1]


def test_raw_pixels_as_floats_are_refused() -> None:
    pixels = torch.randint(0, 256, (1, 3, *CANVAS)).float()
    with pytest.raises(DataError, match=r"the largest is 255, which is more than white.*predict_images"):
        tiny_detector().predict(pixels)
    white = torch.full((1, 3, *CANVAS), 2.6)
    tiny_detector().predict(white)
