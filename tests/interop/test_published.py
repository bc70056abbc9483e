"""Published names: strict both ways."""

from __future__ import annotations

import pytest
import torch

import dsctool
from dsctool.errors import CheckpointError
from dsctool.interop import rename
from tests.parity.published import published_keys

NAME = "htc_without_semantic_r50_fpn_1x_coco"


def test_no_two_published_names_become_one() -> None:
    for name in (NAME, "htc_r50_fpn_1x_coco"):
        keys = published_keys(name)
        assert len({rename(key) for key in keys}) == len(keys)


def test_every_key_that_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    model = dsctool.build_model(NAME)
    state = {key: torch.zeros(shape) for key, shape in published_keys(NAME).items()}
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(1, 2, 3)
    del state["rpn_head.rpn_cls.bias"]
    state["extra.thing"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        dsctool.interop.load_published(model, state)
    message = str(caught.value)
    assert "missing: rpn.objectness.bias" in message
    assert "unexpected: extra.thing" in message
    assert "neck.lateral_convs.0.conv.weight: (1, 2, 3), but the model has (256, 256, 1, 1)" in message
    assert model.state_dict()["backbone.conv1.weight"].any()


def test_two_keys_for_one_parameter_are_named() -> None:
    model = dsctool.build_model(NAME)
    state = {key: torch.zeros(shape) for key, shape in published_keys(NAME).items()}
    state["neck.lateral_convs.0.weight"] = torch.zeros(256, 256, 1, 1)
    with pytest.raises(
        CheckpointError, match=r"twice: neck\.lateral_convs\.0\.conv\.weight and neck\.lateral_convs\.0\.weight"
    ):
        dsctool.interop.load_published(model, state)
