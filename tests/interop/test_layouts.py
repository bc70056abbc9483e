"""Layouts of published files, each written by hand from its description."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsctool.interop.layouts import unify


def rows(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_the_first_version() -> None:
    """Three classes: background is row 0 of the classifier, and channel 0 of the masks."""
    state = {
        "backbone.conv1.weight": rows(1),
        "rfp_modules.0.conv1.weight": rows(2),
        "rfp_aspp.aspp.0.weight": rows(3),
        "rfp_weight.bias": rows(4),
        "rpn_head.rpn_cls.bias": rows(5, 6, 7),
        "bbox_head.0.fc_cls.weight": rows(0, 1, 2, 3),
        "bbox_head.0.fc_cls.bias": rows(10, 11, 12, 13),
        "bbox_head.0.fc_reg.weight": rows(1, 2, 3, 4),
        "mask_head.2.conv_logits.weight": rows(20, 21, 22, 23),
        "mask_head.2.convs.0.conv.weight": rows(20, 21, 22, 23),
        "semantic_head.conv_logits.bias": rows(*range(183)),
    }
    unified = unify(state)
    expected = {
        "backbone.conv1.weight": rows(1),
        "neck.rfp_modules.0.conv1.weight": rows(2),
        "neck.rfp_aspp.aspp.0.weight": rows(3),
        "neck.rfp_weight.bias": rows(4),
        "rpn_head.rpn_cls.bias": rows(5, 6, 7),
        "roi_head.bbox_head.0.fc_cls.weight": rows(1, 2, 3, 0),
        "roi_head.bbox_head.0.fc_cls.bias": rows(11, 12, 13, 10),
        "roi_head.bbox_head.0.fc_reg.weight": rows(1, 2, 3, 4),
        "roi_head.mask_head.2.conv_logits.weight": rows(21, 22, 23),
        "roi_head.mask_head.2.convs.0.conv.weight": rows(20, 21, 22, 23),
        "roi_head.semantic_head.conv_logits.bias": rows(*range(183)),
    }
    assert unified.state.keys() == expected.keys()
    assert all(torch.equal(unified.state[name], value) for name, value in expected.items())
    assert unified.layout == "mmdet 1.x"
    assert unified.changes == (
        "background moved behind the classes, its mask channels dropped, heads and pyramid moved",
    )


def test_later_versions_stay() -> None:
    state = {"roi_head.bbox_head.0.fc_cls.weight": rows(0, 1), "neck.rfp_weight.bias": rows(4)}
    unified = unify(state)
    assert unified.state == state
    assert (unified.layout, unified.changes) == ("mmdet 2.x or 3.x", ())


@pytest.mark.parametrize("old", [True, False])
def test_wrapper_averages_and_offsets(old: bool) -> None:
    """In any combination: a file of distributed training with averages, by an old version."""
    head = "" if old else "roi_head."
    state = {
        f"module.{head}bbox_head.0.fc_cls.bias": rows(0, 1),
        f"module.ema_{head.replace('.', '_')}bbox_head_0_fc_cls_bias": rows(7, 8),
        "module.backbone.layer2.0.conv2_offset.weight": rows(3),
        "module.backbone.layer2.0.conv2.weight": rows(4),
    }
    unified = unify(state)
    assert unified.state["roi_head.bbox_head.0.fc_cls.bias"].tolist() == ([[1], [0]] if old else [[0], [1]])
    assert unified.state["backbone.layer2.0.conv2.conv_offset.weight"].item() == 3
    assert len(unified.state) == 3
    assert any("1 moving averages left out" in change for change in unified.changes)
    assert any("1 offsets" in change for change in unified.changes)
    assert any("4 names without" in change for change in unified.changes)


def test_an_offset_that_is_there_by_both_names_stays() -> None:
    state = {"backbone.conv2_offset.weight": rows(1), "backbone.conv2.conv_offset.weight": rows(2)}
    assert unify(state).state.keys() == state.keys()
