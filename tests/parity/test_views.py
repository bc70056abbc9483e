"""Several views of an image, averaged, against the recording of mmdet. Run with ``-s`` to see the differences."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.models.detector import Detector, to_instances
from dsctool.models.views import View, _Looking, detect_in_views
from dsctool.structures import LimitName, Proposals
from tests.parity import fill
from tests.parity.published import difference, filled_model, mask_area_excess, match, match_proposals, recording

NAME = "htc_r50_fpn_1x_coco"


@pytest.fixture(scope="module")
def model() -> Detector:
    """Which computes the features of a view once: they are slow."""
    model, known = filled_model(NAME), {}
    extract = model.extract_features

    def remembered(images: Tensor) -> list[Tensor]:
        if images.data_ptr() not in known:
            known[images.data_ptr()] = extract(images)
        return known[images.data_ptr()]

    model.extract_features = remembered  # type: ignore[method-assign]
    return model


def recorded_views(recorded: dict[str, np.ndarray]) -> tuple[list[View], tuple[int, int]]:
    """The image and the means of its 2x2 blocks, each with its mirror image."""
    seed, height, width = recorded["seed_h_w"].tolist()
    image = torch.from_numpy(fill.image(seed, height, width))
    half = image.unflatten(3, (-1, 2)).mean(dim=4).unflatten(2, (-1, 2)).mean(dim=3)
    assert difference(image[0, :, ::16, ::16], recorded["image/slice"]) < 1e-5
    assert difference(half[0, :, ::16, ::16], recorded["image/half_slice"]) < 1e-5
    return [_view(each, flipped=flipped) for each in (image, half) for flipped in (False, True)], (height, width)


def _view(image: Tensor, *, flipped: bool) -> View:
    size = (image.shape[-2], image.shape[-1])
    return View(image.flip(-1) if flipped else image, size, flipped)


def test_average(model: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = recording(f"{NAME}.tta")
    views, original = recorded_views(recorded)
    kept = []
    merge = _Looking._proposals

    def spy(looking: _Looking) -> tuple[Tensor, frozenset[LimitName]]:
        kept.append(merge(looking))
        return kept[-1]

    monkeypatch.setattr(_Looking, "_proposals", spy)
    results = to_instances(detect_in_views(model, views, original, "average"))
    ((proposals, _),) = kept
    scores = torch.from_numpy(recorded["proposals"][:, 4])
    paired = match_proposals(Proposals(proposals, scores, torch.zeros(())), recorded["proposals"])
    print(f"proposals: {paired}")
    assert len(proposals) == len(recorded["proposals"])
    assert paired.share >= 0.97
    found = match(results.boxes, results.scores, results.labels, recorded, "final")
    print(f"detections: {found}")
    assert len(results) == len(recorded["final/boxes"])
    assert found.share >= 0.97
    assert mask_area_excess(results, found, recorded["final/mask_area"]) <= 0
    expected = coco_mask.decode(json.loads(str(recorded["final/mask_rle_json"])))
    assert results.masks is not None
    ours = results.masks[found.ours][: expected.shape[-1]]
    pixels = (ours != torch.from_numpy(expected).permute(2, 0, 1).bool()).flatten(1).sum(dim=1)
    print(f"masks differ in {int(pixels[found.good].max())} pixels at most")
    assert int(pixels[found.good].max()) <= 10
