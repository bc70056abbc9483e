"""Every shipped configuration builds, and the published ones have the published parameters."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch

from dsctool.config.loading import load_config
from dsctool.config.names import list_configs
from dsctool.interop import rename
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from tests.conftest import RECORDINGS
from tests.models.undrawn import undrawn_weights
from tests.parity.published import published_keys

PUBLISHED = sorted(path.name.removesuffix(".keys.json") for path in RECORDINGS.glob("**/*.keys.json"))


@cache
def built(name: str, *overrides: str) -> Detector:
    with torch.device("meta"), undrawn_weights():
        return build_detector(load_config(name, overrides))


@pytest.mark.parametrize("name", [entry.name for entry in list_configs()])
def test_every_shipped_configuration_builds_without_data(name: str) -> None:
    assert built(name).num_classes == 80


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_and_shapes(name: str) -> None:
    model = built(name)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == {rename(key): shape for key, shape in published_keys(name).items()}
    recorded = json.loads(next(RECORDINGS.glob(f"**/{name}.keys.json")).read_text())
    total = recorded.get("num_parameters", recorded.get("n_parameters"))  # two recorders, two names
    trainable = recorded.get("num_trainable_parameters", recorded.get("n_trainable"))
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == total
    assert sum(p.numel() for p in parameters if p.requires_grad) == trainable


@pytest.mark.parametrize("kind", ["dsc", "fast_dsc"])
def test_the_longer_schedule_changes_no_layer(kind: str) -> None:
    one, twenty = (load_config(f"{kind}_r50_fpn_{schedule}_coco") for schedule in ("1x", "20e"))
    assert one.model == twenty.model
    assert (one.train.epochs, twenty.train.epochs) == (12, 20)


def test_classes_come_from_the_data_where_the_configuration_leaves_them_open() -> None:
    config = load_config("htc_tiny")
    assert build_detector(config, num_classes=3).num_classes == 3
    assert build_detector(load_config("htc_tiny", ["model.num_classes=5"]), num_classes=3).num_classes == 5


@pytest.mark.parametrize(
    ("words", "channels"),
    [
        (["data.semantic=stuffthingmaps"], 183),
        (["data.semantic=stuffthingmaps", "panoptic.labels=[sand, sea]"], 183),
        (["data.semantic=stuffthingmaps", f"panoptic.labels=[{', '.join(f's{i}' for i in range(200))}]"], 200),
        (["data.semantic=instances"], 4),
        (["data.semantic=none"], None),
    ],
)
def test_the_semantic_branch_follows_the_supervision(words: list[str], channels: int | None) -> None:
    model = build_detector(load_config("htc_tiny", ["model.num_classes=3", *words]))
    head = model.cascade.semantic_head
    assert (None if head is None else head.logits.out_channels) == channels


@pytest.mark.parametrize(
    ("overrides", "layout"),
    [
        (["model.neck.rfp=null"], "htc_r50_sac_1x_coco"),
        (["model.backbone.sac=null"], "htc_r50_rfp_1x_coco"),
        (
            ["model.neck.rfp=null", "model.backbone.sac=null", "model.backbone.weight_standardisation=false"],
            "htc_r50_fpn_1x_coco",
        ),
    ],
)
def test_parts_of_detectors_come_off_one_by_one(overrides: list[str], layout: str) -> None:
    model = built("detectors_htc_r50_1x_coco", *overrides)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == {rename(key): shape for key, shape in published_keys(layout).items()}
