"""What holds for every detector, whatever its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsctool.errors import DataError
from dsctool.structures import Targets
from tests.models.tiny import one_box, tiny_detector

CASCADES = ["htc_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny"]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("name", CASCADES)
@pytest.mark.parametrize("count", [0, 2])
def test_every_parameter_gets_a_finite_gradient(name: str, count: int, device: torch.device) -> None:
    model = tiny_detector(name).to(device).train()
    losses = model.losses(torch.randn(1, 3, 64, 96, device=device), [one_box(64, 96, count=count).to(device)])
    total(losses).backward()
    assert {key: value.item() for key, value in losses.items() if not value.isfinite()} == {}
    without = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert without == []


def test_an_image_without_instances_has_no_box_and_mask_losses() -> None:
    losses = tiny_detector().losses(torch.randn(1, 3, 64, 96), [one_box(64, 96, count=0)])
    names = [name for name in losses if "bbox" in name or "mask" in name]
    assert len(names) == 7
    assert all(losses[name].item() == 0 for name in names)
    assert losses["s0.loss_cls"].item() > 0


def test_losses_and_results_do_not_depend_on_the_mode() -> None:
    model, image, targets = tiny_detector(), torch.randn(1, 3, 64, 96), [one_box(64, 96)]
    outcomes = []
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(1)
        outcomes.append((model.losses(image, targets), model.predict(image)[0]))
    (train_losses, train_results), (eval_losses, eval_results) = outcomes
    assert {k: v.item() for k, v in train_losses.items()} == {k: v.item() for k, v in eval_losses.items()}
    assert torch.equal(train_results.boxes, eval_results.boxes)


def test_a_seed_fixes_the_losses() -> None:
    model, image, targets = (
        tiny_detector(overrides=["model.cascade.samples=8"]),
        torch.randn(1, 3, 64, 96),
        one_box(64, 96),
    )
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(total(model.losses(image, [targets])).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("name", CASCADES)
def test_a_batch_gives_each_image_what_it_gets_alone(name: str, device: torch.device) -> None:
    model = tiny_detector(name, ["postprocess.score_threshold=0.0"]).to(device).eval()
    images = torch.randn(2, 3, 96, 128, device=device)
    images[1, :, 64:] = 0
    images[1, :, :, 96:] = 0
    sizes, originals = [(96, 128), (64, 96)], [(48, 64), (100, 150)]
    together = model.predict(images, sizes, originals)
    for i in range(2):
        alone = model.predict(images[i : i + 1], sizes[i : i + 1], originals[i : i + 1])[0]
        assert len(alone) > 0
        torch.testing.assert_close(together[i].boxes, alone.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(together[i].scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert together[i].masks is not None
        assert together[i].masks.shape[1:] == originals[i]


def test_boxes_stay_inside_the_image_without_its_padding() -> None:
    results = tiny_detector(overrides=["postprocess.score_threshold=0.0"]).predict(
        torch.randn(1, 3, 96, 128), [(70, 101)]
    )[0]
    assert len(results) > 0
    assert results.boxes[:, 0::2].max() <= 101
    assert results.boxes[:, 1::2].max() <= 70
    assert results.scores.tolist() == sorted(results.scores.tolist(), reverse=True)


def test_nothing_above_the_threshold_is_an_empty_result() -> None:
    results = tiny_detector(overrides=["postprocess.score_threshold=1.0"]).predict(torch.randn(2, 3, 64, 96))
    assert [len(r) for r in results] == [0, 0]
    assert results[0].masks is not None
    assert results[0].masks.shape == (0, 64, 96)


def test_without_mask_heads_there_are_boxes_only() -> None:
    model = tiny_detector("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null"])
    targets = one_box(64, 96)
    boxes_only = Targets(boxes=targets.boxes, labels=targets.labels)
    assert not any("mask" in name for name in model.losses(torch.randn(1, 3, 64, 96), [boxes_only]))
    assert model.predict(torch.randn(1, 3, 64, 96))[0].masks is None
    assert not model.has_masks


def test_missing_supervision_is_said() -> None:
    image, full = torch.randn(1, 3, 64, 96), one_box(64, 96)
    without_map = Targets(boxes=full.boxes, labels=full.labels, masks=full.masks)
    with pytest.raises(DataError, match=r"data\.semantic=none"):
        tiny_detector().losses(image, [without_map])
    without_masks = Targets(boxes=full.boxes, labels=full.labels, semantic=full.semantic)
    with pytest.raises(DataError, match="masks"):
        tiny_detector().losses(image, [without_masks])


def test_weights_that_are_not_finite_are_left_to_the_losses() -> None:
    model = tiny_detector()
    model.cascade.box_stages[0].head.regressor.weight.data.fill_(float("nan"))
    image = torch.randn(1, 3, 64, 96)
    assert not model.losses(image, [one_box(64, 96)])["s0.loss_bbox"].isfinite()
    model.losses(image, [one_box(64, 96, count=0)])
    model.predict(image)
