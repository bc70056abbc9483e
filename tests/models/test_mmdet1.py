"""Detectors in the geometry of mmdet 1.x: slow definitions of all behind the features, and all that they meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.coco_results import Rle
from dsctool.config.loading import load_config
from dsctool.config.schema import TTAConfig
from dsctool.engine.inference import find_instances, to_results
from dsctool.engine.views import ImageViews
from dsctool.errors import ConfigError
from dsctool.models import postprocess as postprocess_module
from dsctool.models.cascades.htc import HTC
from dsctool.models.detector import Detector, to_instances
from dsctool.models.losses import values
from dsctool.models.rpn import RPN
from dsctool.models.views import View, detect_in_views
from dsctool.ops import geometry as geometry_module
from dsctool.ops import roi_align as roi_align_module
from dsctool.ops.geometry import CURRENT, Mmdet1Geometry
from dsctool.ops.masks import encode_images
from dsctool.structures import Targets
from tests.models.tiny import one_box, tiny_detector
from tests.ops import mmdet1
from tests.ops.mmdet1 import half_open, inclusive
from tests.ops.test_masks import bitmaps

MMDET1 = "model.geometry=mmdet1"
SIDES = ("data.test_resize.short_sides=[64]", "data.test_resize.long_side=100")
ORIGINAL, SIZE = (47, 71), (64, 97)
"""An image and its copy for the network, by one factor of 64 / 47."""
STRIDES = (4, 8, 16, 32, 64)


def lively(detector: Detector) -> Detector:
    """Its boxes move, and its scores and masks differ, though nothing was trained."""
    for name, module in detector.named_modules():
        if name.endswith(("deltas", "regressor", "objectness", "classifier", "logits")):
            assert isinstance(module, nn.Conv2d | nn.Linear)
            nn.init.normal_(module.weight, std=2.5 / module.weight[0].numel() ** 0.5)
    return detector.eval()


def mmdet1_detector(name: str = "htc_tiny", overrides: Sequence[str] = ()) -> Detector:
    return lively(tiny_detector(name, [MMDET1, *SIDES, "postprocess.score_threshold=0.001", *overrides]))


def image(seed: int = 0) -> Tensor:
    padded = torch.zeros(1, 3, 64, 128)
    padded[..., : SIZE[0], : SIZE[1]] = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return padded


# --- inference, from the features on ------------------------------------------------------------------


def levels_of(model: Detector, features: Sequence[Tensor]) -> Iterator[tuple[list[list[float]], list[float]]]:
    """Decoded anchors and scores of every level."""
    for logit, delta, stride in zip(*model.rpn(features), STRIDES, strict=True):
        places = mmdet1.anchors((logit.shape[2], logit.shape[3]), stride, 4, (0.5, 1.0, 2.0))
        deltas = delta[0].permute(1, 2, 0).reshape(-1, 4).double().tolist()
        scores = logit[0].permute(1, 2, 0).flatten().double().sigmoid().tolist()
        boxes = [mmdet1.decode(box, d, (1, 1, 1, 1), SIZE) for box, d in zip(places, deltas, strict=True)]
        yield boxes, scores


def pooled(features: Sequence[Tensor], semantic: Tensor, boxes: list[list[float]], bins: int) -> Tensor:
    """RoI features ``(R, C, bins, bins)`` of the pyramid and of the semantic branch."""
    found = []
    for box in boxes:
        level = mmdet1.level(box)
        own = mmdet1.roi_align(features[level][0].double().numpy(), box, bins, STRIDES[level])
        branch = mmdet1.roi_align(semantic[0].double().numpy(), box, 14, 8)
        step = 14 // bins
        found.append(own + branch.reshape(len(branch), bins, step, bins, step).mean(axis=(2, 4)))
    return torch.from_numpy(np.stack(found)).float()


@torch.no_grad()
@pytest.mark.parametrize("suppression", ["box", "soft"])
def test_all_of_a_cascade_as_mmdet1_did_it(suppression: str) -> None:
    limits = ["model.rpn.test_pre_nms=60", "model.rpn.test_max_proposals=12", f"postprocess.nms={suppression}"]
    model = mmdet1_detector(overrides=[*limits, "postprocess.max_per_image=100"])
    (found,) = model.detect(image(), [SIZE], [ORIGINAL])
    factor = mmdet1.factor(ORIGINAL, 64, 100)
    cascade, features = model.cascade, model.extract_features(image())
    assert isinstance(cascade, HTC)
    assert cascade.semantic_head is not None
    _, semantic = cascade.semantic_head(features)

    boxes, scores = mmdet1.proposals(list(levels_of(model, features)), best=60, threshold=0.7)
    boxes = boxes[:12]
    (proposed,) = model.rpn.propose(features, [SIZE])
    torch.testing.assert_close(inclusive(proposed.boxes), torch.tensor(boxes), rtol=0, atol=1e-3)
    torch.testing.assert_close(proposed.scores, torch.tensor(scores[:12]))

    logits = []
    for stage in cascade.box_stages:
        classes, deltas = stage.head(pooled(features, semantic, boxes, 7))
        pairs = zip(boxes, deltas.double().tolist(), strict=True)
        logits.append(classes)
        boxes = [mmdet1.decode(box, delta, stage.stds, SIZE) for box, delta in pairs]
    probs = torch.stack(logits).mean(dim=0).softmax(dim=1)[:, :-1].double().numpy()
    originals = np.array(boxes) / factor

    def suppress(some: list[list[float]], score: list[float]) -> list[tuple[int, float]]:
        if suppression == "soft":
            return mmdet1.soft_nms(some, score, 0.5)
        return [(row, score[row]) for row in mmdet1.nms(some, score, 0.5)]

    kept = mmdet1.by_class(suppress, originals, probs, 0.001)
    assert found.labels.tolist() == [label for _, label, _ in kept]
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in kept]), rtol=1e-4, atol=1e-5)
    rows = [row for _, _, row in kept]
    expected = torch.from_numpy(originals[rows]).float()
    torch.testing.assert_close(inclusive(found.boxes), expected, rtol=0, atol=1e-3)

    x = pooled(features, semantic, (originals[rows] * factor).tolist(), 14)
    stages = zip(cascade.mask_heads, cascade.mask_features(x, 3), strict=True)
    masks = torch.stack([head.predict_classes(y, found.labels).sigmoid() for head, y in stages]).mean(dim=0)
    pasted = [
        mmdet1.paste(m, b, ORIGINAL) for m, b in zip(masks.double().numpy(), originals[rows].tolist(), strict=True)
    ]
    instances = to_instances(found)
    assert instances.masks is not None
    assert 0.1 < np.stack(pasted).sum() / sum(mmdet1.area(box) for box in originals[rows].tolist()) < 0.9
    assert (instances.masks.numpy() != np.stack(pasted)).mean() < 1e-3
    results = to_results(found, 1, model.categories)
    assert torch.equal(bitmaps([r["segmentation"] for r in results]), instances.masks)  # type: ignore[misc]
    width, first = results[0]["bbox"][2], originals[rows[0]]
    assert width == pytest.approx(first[2] - first[0] + 1, abs=0.01), "results count the last pixel"


@torch.no_grad()
def test_the_best_proposals_of_each_level_then_of_all() -> None:
    model = mmdet1_detector(overrides=["model.rpn.test_pre_nms=1000", "model.rpn.test_max_proposals=25"])
    features = model.extract_features(image())
    (found,) = model.rpn.propose(features, [SIZE])
    boxes, scores = mmdet1.proposals(list(levels_of(model, features)), best=25, threshold=0.7)
    torch.testing.assert_close(found.scores, torch.tensor(scores))
    torch.testing.assert_close(inclusive(found.boxes), torch.tensor(boxes), rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("geometry", ["mmdet1", "current"])
def test_proposals_without_area_stay(geometry: str) -> None:
    """A filter would have nothing to do where the last pixel counts, and was off: nobody is left out."""
    model = tiny_detector("htc_tiny", [f"model.geometry={geometry}", "model.rpn.nms_iou=1.0"]).eval()
    nn.init.constant_(model.rpn.deltas.bias, 9.0)  # far to the right, and small: all outside the image
    model.rpn.deltas.bias[2::4] = model.rpn.deltas.bias[3::4] = -9.0
    (found,) = model.rpn.propose(model.extract_features(image()), [SIZE])
    assert (len(found.boxes) > 0) == (geometry == "mmdet1")
    assert (inclusive(found.boxes)[:, 0] == SIZE[1] - 1).all()


# --- training -----------------------------------------------------------------------------------------


def some_targets() -> Targets:
    """Three instances, one of which no anchor fits well."""
    boxes = torch.tensor([[8.0, 10.0, 40.0, 50.0], [30.0, 5.0, 90.0, 61.0], [2.0, 2.0, 6.0, 30.0]])
    full = one_box(64, 128, count=3)
    masks = torch.zeros(3, 64, 128, dtype=torch.bool)
    for row, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        masks[row, y1:y2, x1:x2] = True
        masks[row, y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = False
    return replace(full, boxes=boxes, masks=masks)


def test_losses_of_the_rpn() -> None:
    """Anchors, which of them are inside, assignment with low-quality matches, encoding: anchor by anchor."""
    model = mmdet1_detector(overrides=["model.rpn.samples=100000", "model.rpn.positive_fraction=1.0"])
    features, target = model.extract_features(image()), some_targets()
    losses = values(model.rpn.losses(features, [target], [SIZE])[0])
    gts = inclusive(target.boxes).tolist()
    places: list[list[float]] = []
    logits, deltas = [], []
    for logit, delta, stride in zip(*model.rpn(features), STRIDES, strict=True):
        places += mmdet1.anchors((logit.shape[2], logit.shape[3]), stride, 4, (0.5, 1.0, 2.0))
        logits.append(logit[0].permute(1, 2, 0).flatten())
        deltas.append(delta[0].permute(1, 2, 0).reshape(-1, 4))
    inside = [row for row, box in enumerate(places) if mmdet1.is_inside(box, SIZE)]
    found = mmdet1.assign([places[row] for row in inside], gts, 0.7, 0.3, 0.3)
    assert {0, 1, -1, -2} <= set(found)
    positives = [(row, gt) for row, gt in zip(inside, found, strict=True) if gt >= 0]
    negatives = [row for row, gt in zip(inside, found, strict=True) if gt == -1]
    count = len(positives) + max(len(negatives), 1)
    score, moves = torch.cat(logits), torch.cat(deltas)
    total = F.softplus(-score[[row for row, _ in positives]]).sum() + F.softplus(score[negatives]).sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], total / count)
    box_total = torch.zeros(())
    for row, gt in positives:
        wanted = torch.tensor(mmdet1.encode(places[row], gts[gt], (1, 1, 1, 1)))
        box_total = box_total + F.smooth_l1_loss(moves[row], wanted, beta=1 / 9, reduction="sum")
    torch.testing.assert_close(losses["loss_rpn_bbox"], box_total / count, rtol=1e-4, atol=1e-6)


def test_losses_of_a_stage() -> None:
    """Assignment at 0.5 with matches of low quality, the RoI feature, encoding, mask targets, refined boxes."""
    overrides = ["model.cascade.low_quality_matches=false", "model.cascade.positive_fraction=1.0"]
    model = mmdet1_detector("cascade_mask_rcnn_tiny", [*overrides, "model.cascade.mask_head.convs=1"])
    cascade, target = model.cascade, some_targets()
    features = model.extract_features(image())
    generator = torch.Generator().manual_seed(1)
    around = inclusive(target.boxes).repeat(6, 1) + torch.randn(18, 4, generator=generator) * 5
    around = around.clamp(min=0).minimum(torch.tensor([96.0, 63.0, 96.0, 63.0]))
    around = torch.cat([torch.minimum(around[:, :2], around[:, 2:]), torch.maximum(around[:, :2], around[:, 2:])], 1)
    around = torch.cat([around, torch.tensor([[60.0, 40.0, 90.0, 60.0]])])
    losses = values(cascade.losses(features, [half_open(around)], [target], [SIZE]))  # type: ignore[operator]

    gts, boxes = inclusive(target.boxes).tolist(), [*inclusive(target.boxes).tolist(), *around.tolist()]
    assigned = [0, 1, 2, *mmdet1.assign(around.tolist(), gts, 0.5, 0.5, 0.5)]
    positives = [row for row, gt in enumerate(assigned) if gt >= 0]
    order = [*positives, *(row for row, gt in enumerate(assigned) if gt == -1)]
    assert 5 < len(positives) < len(order) < 1 + len(boxes)
    stage = cascade.box_stages[0]  # type: ignore[index, union-attr]

    def feature(rows: list[int], bins: int) -> Tensor:
        found = []
        for row in rows:
            level = mmdet1.level(boxes[row])
            own = features[level][0].detach().double().numpy()
            found.append(mmdet1.roi_align(own, boxes[row], bins, STRIDES[level]))
        return torch.from_numpy(np.stack(found)).float()

    logits, deltas = stage.head(feature(order, 7))
    labels = torch.tensor([int(target.labels[assigned[row]]) if assigned[row] >= 0 else 3 for row in order])
    torch.testing.assert_close(losses["s0.loss_cls"], F.cross_entropy(logits, labels), rtol=1e-4, atol=1e-5)
    wanted = torch.tensor([mmdet1.encode(boxes[row], gts[assigned[row]], stage.stds) for row in positives])
    box_loss = F.smooth_l1_loss(deltas[: len(positives)], wanted, reduction="sum") / len(order)
    torch.testing.assert_close(losses["s0.loss_bbox"], box_loss, rtol=1e-4, atol=1e-5)

    assert target.masks is not None
    bits = target.masks.numpy().astype(np.uint8)
    masks = np.stack([mmdet1.mask_target(bits[assigned[row]], boxes[row], 28) for row in positives])
    head = cascade.mask_heads[0]  # type: ignore[index, union-attr]
    predicted = head.predict_classes(head.feature(feature(positives, 14)), labels[: len(positives)])
    mask_loss = F.binary_cross_entropy_with_logits(predicted, torch.from_numpy(masks).float())
    torch.testing.assert_close(losses["s0.loss_mask"], mask_loss, rtol=1e-4, atol=1e-5)

    refined = [
        mmdet1.decode(boxes[row], delta, stage.stds, SIZE)
        for row, delta in zip(order, deltas.tolist(), strict=True)
        if row > 2
    ]
    samples = stage.sample([half_open(around)], [target], draw=1)
    (following,) = stage.next_proposals(samples, deltas.detach(), [SIZE])
    torch.testing.assert_close(inclusive(following), torch.tensor(refined), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["cascade_mask_rcnn_tiny", "htc_tiny", "dsc_tiny"])
def test_boxes_that_a_stage_moves_out_of_the_image_keep_a_pixel(name: str) -> None:
    stage = mmdet1_detector(name).cascade.box_stages[0]  # type: ignore[index, union-attr]
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[10.0, 10.0, 30.0, 25.0]]).repeat(50, 1) + torch.rand(50, 4, generator=generator)
    deltas = torch.randn(50, 4, generator=generator) * 30
    (moved,) = stage.refine([half_open(boxes)], deltas, [SIZE])
    pairs = zip(boxes.tolist(), deltas.tolist(), strict=True)
    expected = torch.tensor([mmdet1.decode(box, delta, stage.stds, SIZE) for box, delta in pairs])
    torch.testing.assert_close(inclusive(moved), expected, rtol=0, atol=1e-3)
    for side, place in ((0, SIZE[1] - 1), (1, SIZE[0] - 1), (2, 0), (3, 0)):
        assert (expected[:, side] == place).any(), "some lie beyond each border"


@pytest.mark.parametrize("name", ["htc_tiny", "dsc_tiny"])
def test_the_semantic_loss_is_averaged_over_labelled_cells(name: str) -> None:
    model = tiny_detector(name, [MMDET1, "model.cascade.semantic.loss_average=all_pixels"])
    head = model.cascade.semantic_head
    logits, labels = torch.randn(1, 4, 3, 5), torch.randint(4, (1, 3, 5))
    labels[0, 1] = 255
    head.logits = nn.Identity()  # type: ignore[union-attr]
    total = sum(
        logits[0, :, row, column].logsumexp(0) - logits[0, labels[0, row, column], row, column]
        for row in (0, 2)
        for column in range(5)
    )
    found = head.loss(logits, labels).value  # type: ignore[union-attr, operator]
    torch.testing.assert_close(found, head.loss_weight * total / 10)  # type: ignore[union-attr, operator]


# --- crossed with everything else ---------------------------------------------------------------------

PRODUCTS = [
    ("htc_tiny", ["postprocess.nms=soft", "postprocess.keep_candidates=30"], None),
    ("htc_tiny", ["postprocess.nms=mask", "data.semantic=none"], "average"),
    ("detectors_tiny", ["postprocess.nms=soft"], "union"),
    ("detectors_tiny", ["postprocess.nms=mask", "postprocess.keep_candidates=30"], None),
    ("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null", "postprocess.keep_candidates=30"], "average"),
    ("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null", "postprocess.nms=soft"], None),
    ("cascade_mask_rcnn_tiny", ["postprocess.keep_candidates=30"], "union"),
    ("dsc_tiny", ["postprocess.nms=mask"], "average"),
    ("dsc_tiny", ["model.cascade.roi_clipping=true", "postprocess.nms=soft"], None),
    ("fast_dsc_tiny", ["model.cascade.alignment=recompute"], "union"),
    ("fast_dsc_tiny", ["model.cascade.explicit_guidance=false", "model.cascade.alignment=none"], None),
    ("dsc_detectors_tiny", ["postprocess.keep_candidates=30"], "average"),
]


@pytest.fixture(autouse=True)
def only_whole_pixels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this geometry nobody samples a mask target, or pastes as today, also to suppress by masks."""
    if "not_asked_for" in request.node.name:
        return

    def refused(*_: object) -> Tensor:
        raise AssertionError("mask targets of today's geometry")

    def whole(*arguments: Any, whole_pixels: bool = False) -> list[list[Rle]]:
        assert whole_pixels
        return encode_images(*arguments, whole_pixels=True)

    monkeypatch.setattr(geometry_module, "mask_targets", refused)
    monkeypatch.setattr(postprocess_module, "encode_images", whole)


@pytest.fixture
def samples_used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Of each RoIAlign: whether it looks at features of the image, and the samples a side of its bins."""
    used: list[tuple[bool, int]] = []
    aligned = roi_align_module.aligned

    def seen(
        features: list[Tensor], rois: Tensor, levels: Tensor, size: int, strides: list[float], pool: int, samples: int,
        keep: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        used.append((strides != [1.0], samples))
        return aligned(features, rois, levels, size, strides, pool, samples, keep)

    monkeypatch.setattr(roi_align_module, "aligned", seen)
    return used


@pytest.mark.parametrize(("name", "overrides", "merge"), PRODUCTS)
def test_every_cascade_with_all_that_results_depend_on(
    name: str, overrides: list[str], merge: str | None, samples_used: list[tuple[bool, int]]
) -> None:
    views = [] if merge is None else ["data.tta.short_sides=[64,96]", f"data.tta.merge={merge}"]
    model = mmdet1_detector(name, [*overrides, *views])
    picture = torch.randint(0, 256, (3, *ORIGINAL), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (found,) = find_instances(model, [picture], score=0.0)
    assert len(found) > 0
    assert found.boxes.isfinite().all()
    assert found.scores.isfinite().all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([72.0, 48.0, 72.0, 48.0])).all(), "a last pixel may reach out by its width"
    assert (found.masks is None) == ("model.cascade.mask_head=null" in overrides)
    if found.masks is not None:
        for box, mask in zip(inclusive(found.boxes).tolist(), found.masks, strict=True):
            left, top, right, bottom = map(int, box)
            outside = mask.clone()
            outside[top : max(bottom, top) + 1, left : max(right, left) + 1] = False
            assert not outside.any(), "masks are painted on whole pixels of their boxes"
    assert {samples for of_image, samples in samples_used if of_image} == {2}
    assert {samples for of_image, samples in samples_used if not of_image} <= {0}, "DSC's own alignment stays"


@pytest.mark.parametrize(("name", "overrides", "merge"), PRODUCTS[::2] + PRODUCTS[7::2])
def test_every_cascade_trains(
    name: str, overrides: list[str], merge: str | None, samples_used: list[tuple[bool, int]]
) -> None:
    model = tiny_detector(name, [MMDET1, *overrides]).train()
    losses = model.losses(image(), [some_targets()], [SIZE])
    total = sum(losses.values())
    assert isinstance(total, Tensor)
    total.backward()
    assert total.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, parameter_name
        assert parameter.grad is None or parameter.grad.isfinite().all(), parameter_name
    assert {samples for of_image, samples in samples_used if of_image} == {2}


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny", "dsc_tiny", "cascade_mask_rcnn_tiny"])
def test_one_view_is_no_augmentation(name: str) -> None:
    picture = torch.randint(0, 256, (3, *ORIGINAL), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for merge in ("average", "union"):
        one = ["data.tta.short_sides=[64]", "data.tta.long_side=100", "data.tta.flip=false", f"data.tta.merge={merge}"]
        (seen,), (plain,) = (find_instances(mmdet1_detector(name, more), [picture], score=0.0) for more in (one, []))
        assert torch.equal(seen.boxes, plain.boxes)
        assert torch.equal(seen.scores, plain.scores)
        assert torch.equal(seen.masks, plain.masks)  # type: ignore[arg-type]


@pytest.mark.parametrize("merge", ["average", "union"])
def test_the_same_view_twice_changes_nothing(merge: str) -> None:
    """Of boxes and masks: what goes into a view comes out of it."""
    model = mmdet1_detector(overrides=["model.rpn.nms_iou=0.4"])
    view = View(image(), SIZE, False)
    once = model.detect(image(), [SIZE], [ORIGINAL])[0]
    twice = detect_in_views(model, [view, view], ORIGINAL, merge)  # type: ignore[arg-type]
    assert twice.whole_pixels
    if merge == "union":
        assert torch.equal(twice.boxes, once.boxes)
        torch.testing.assert_close(twice.mask_probs, once.mask_probs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["htc_tiny", "dsc_tiny"])
def test_boxes_of_stages_come_out_as_results_do(name: str) -> None:
    model = mmdet1_detector(name, ["postprocess.max_per_image=5"])
    (found,) = model.detect(image(), [SIZE], [ORIGINAL], stage_masks=True)
    (inside,) = model.detect(image(), [SIZE], stage_masks=True)
    assert found[torch.arange(2)].whole_pixels, "rows keep it"
    assert len(found) == 5
    for stage, own in zip(found.stages, inside.stages, strict=True):
        rows = [row for row in range(5) if abs(found.scores[row] - inside.scores[row]) < 1e-6]
        expected = inclusive(own.boxes[rows]) / mmdet1.factor(ORIGINAL, 64, 100)
        torch.testing.assert_close(inclusive(stage.boxes[rows]), expected, rtol=0, atol=1e-3)
        assert rows


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_go_into_a_view_and_come_out(flipped: bool) -> None:
    geometry, factor = Mmdet1Geometry(resizes=((64, 100),)), mmdet1.factor(ORIGINAL, 64, 100)
    boxes = torch.tensor([[0.0, 0.0, 70.0, 46.0], [10.0, 5.5, 20.0, 25.0]])
    view = View(torch.zeros(1, 3, 64, 128), SIZE, flipped)
    there = view.boxes_in(half_open(boxes), ORIGINAL, geometry)
    expected = [[side * factor for side in box] for box in boxes.tolist()]
    expected = [mmdet1.flip(box, SIZE[1]) for box in expected] if flipped else expected
    torch.testing.assert_close(inclusive(there), torch.tensor(expected), rtol=0, atol=1e-4)
    torch.testing.assert_close(inclusive(view.boxes_out(there, ORIGINAL, geometry)), boxes, rtol=0, atol=1e-4)


def test_factors_of_views_are_those_of_their_sizes() -> None:
    model = mmdet1_detector(overrides=["data.tta.short_sides=[50,64]", "data.tta.ratio=1.45"])
    assert model.geometry == Mmdet1Geometry(resizes=((50, 72), (64, 93)))
    tta = TTAConfig(short_sides=(50, 64), ratio=1.45)
    views = ImageViews(torch.zeros(3, *ORIGINAL, dtype=torch.uint8), model.config.data, tta, torch.device("cpu"))
    box = torch.tensor([[0.0, 0.0, 71.0, 47.0]])
    for view, limits in zip([v for v in views if not v.flipped], model.geometry.resizes, strict=True):
        there = inclusive(view.boxes_in(box, ORIGINAL, model.geometry))[0, 2].item()
        assert there == pytest.approx(70 * mmdet1.factor(ORIGINAL, *limits), abs=1e-4)


def test_what_is_not_asked_for_is_not_done() -> None:
    model = tiny_detector()
    assert model.geometry is CURRENT
    assert model.rpn.geometry is CURRENT
    assert not model.detect(image())[0].whole_pixels
    assert tiny_detector(overrides=["model.geometry=current"]).config == model.config
    with pytest.raises(
        ConfigError, match=r"model\.geometry = mmdet2.*must be current or mmdet1; did you mean mmdet1\?"
    ):
        load_config("htc_tiny", ["model.geometry=mmdet2"])


def test_settings_that_come_with_it() -> None:
    """Whatever the keys say that later versions have for them."""
    model = tiny_detector(
        "cascade_mask_rcnn_tiny", [MMDET1, "model.rpn.keep_zero_area=false", "model.cascade.low_quality_matches=false"]
    )
    rpn = model.rpn
    assert isinstance(rpn, RPN)
    assert rpn.keep_zero_area
    assert all(stage.sampling.low_quality_matches for stage in model.cascade.box_stages)  # type: ignore[union-attr]
    assert not model.config.model.cascade.low_quality_matches, "the configuration stays what it was"
