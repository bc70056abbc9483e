"""Whatever a detector derives from its weights and keeps is void as soon as the weights change."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from dsctool.config.schema import OptimConfig
from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.optim import build_optimizer
from dsctool.engine.step import optimizer_step
from dsctool.models.detector import Detector
from dsctool.structures import ImageBatch
from tests.models.tiny import one_box, tiny_detector

FAMILIES = {
    "htc": ("htc_tiny", ()),
    "htc standardised": ("htc_tiny", ("model.backbone.weight_standardisation=true",)),
    "detectors": ("detectors_tiny", ()),
    "detectors shared": ("detectors_tiny", ("model.neck.rfp.share_backbone=true",)),
    "dsc": ("dsc_tiny", ()),
    "dsc detectors": ("dsc_detectors_tiny", ("model.backbone.frozen_stages=1",)),
}
"""Name and overrides of detectors, most of which keep standardised weights."""
FEW = (
    "model.rpn.train_max_proposals=16",
    "model.rpn.test_max_proposals=8",
    "model.cascade.samples=16",
    "postprocess.max_per_image=4",
)
MODES = ((False, True), (False, False), (True, True))
"""``training`` of the model when it detects, and when it steps."""
SIZE = (64, 64)
OptimizerKind = Literal["sgd", "adamw"]


def batch() -> Batch:
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return ImageBatch(images, [SIZE]), [one_box(*SIZE)], [SampleInfo(1, SIZE, "1.jpg")]


def seen(model: Detector) -> list[Tensor]:
    """The pyramid and the detections of the batch's image."""
    image = batch()[0].tensor.to(next(model.parameters()).device)
    with torch.no_grad():
        features = model.extract_features(image)
        proposals = model.rpn.propose(features, [SIZE])[0].boxes
        (found,) = model.detect_from(features, [proposals], [SIZE], [SIZE])
    masks = [] if found.mask_probs is None else [found.mask_probs]
    return [*features, found.boxes, found.scores, found.labels, *masks]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_step_it_detects_as_a_fresh_detector_of_these_weights(
    family: str, kind: OptimizerKind, device: torch.device
) -> None:
    name, overrides = FAMILIES[family]
    model, fresh = (tiny_detector(name, [*overrides, *FEW], seed=seed).to(device) for seed in (0, 1))
    optimizer = build_optimizer(model, OptimConfig(kind=kind))
    for detecting, stepping in MODES:
        before = seen(model.train(detecting))
        model.train(stepping)
        optimizer_step(model, optimizer, [batch()], rate=0.01, max_norm=1.0)
        if stepping != detecting:
            model.train(detecting)
        after = seen(model)
        assert not same(after[:5], before[:5]), "the step changed the pyramid"
        seen(fresh.train(detecting))
        fresh.load_state_dict(model.state_dict())
        assert same(seen(fresh), after), f"detecting with training={detecting}, steps with training={stepping}"


@pytest.mark.parametrize("first", [True, False], ids=["bfloat16 first", "float32 first"])
@pytest.mark.parametrize("family", ["detectors", "htc standardised"])
def test_what_is_kept_serves_every_precision(family: str, first: bool) -> None:
    """Detecting in one precision leaves nothing behind that another one would see."""
    model, fresh = (tiny_detector(*FAMILIES[family]).eval() for _ in range(2))
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    if first:
        with half:
            seen(model)
        assert same(seen(model), seen(fresh))
    else:
        seen(model)
        with half:
            found, expected = seen(model), seen(fresh)
        assert same(found, expected)
        assert not same(found, seen(fresh))
