"""Resolved dumps reload to an equal object; annotated ones too; differences leaf by leaf."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsctool.config.dump import Absent, Difference, annotated_yaml, config_to_yaml, diff_configs
from dsctool.config.loading import load_config, resolve_config
from dsctool.config.model_schema import DscConfig, ModelConfig, RfpConfig
from dsctool.config.names import shipped_paths
from dsctool.config.schema import Config, OptimConfig


def reload(text: str, folder: Path) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, "utf-8")
    return load_config(path)


@pytest.mark.parametrize("name", list(shipped_paths()))
def test_every_shipped_config_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    resolved = resolve_config(name)
    assert reload(config_to_yaml(resolved.config), tmp_path) == resolved.config
    assert reload(annotated_yaml(resolved), tmp_path) == resolved.config


@given(
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    weights=st.sampled_from(
        ["null", "~", "1e-4", "off", "true", "a: b", "- x", "#c", " x ", "{", "é", "0x1F", "1_0", ""]
    ),
    lr=st.floats(1e-30, 1e30, exclude_min=True),
    dsc=st.booleans(),
    rfp=st.none() | st.builds(RfpConfig, steps=st.integers(2, 9)),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_survive_the_round_trip(
    tmp_path: Path, description: str, weights: str, lr: float, dsc: bool, rfp: RfpConfig | None
) -> None:
    low = load_config("htc_tiny")
    cascade = DscConfig(kind="dsc") if dsc else low.model.cascade
    neck = low.model.neck.model_copy(update={"rfp": rfp})
    config = Config(
        description=description,
        model=ModelConfig(
            cascade=cascade, neck=neck, backbone=low.model.backbone.model_copy(update={"weights": weights})
        ),
        optim=OptimConfig(lr=lr),
    )
    assert reload(config_to_yaml(config), tmp_path) == config


def test_the_dump_is_easy_to_read() -> None:
    text = config_to_yaml(load_config("htc_tiny"))
    assert "  neck:\n    channels: 64\n    rfp: null\n" in text
    assert "    iou_thresholds: [0.5, 0.6, 0.7]\n" in text
    assert "    box_stds: [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]\n" in text
    assert "  cascade:\n    kind: htc\n" in text
    assert "\n\nmodel:\n" in text
    assert text.startswith("schema_version: 1\n")


def test_annotations_stand_in_one_column() -> None:
    lines = annotated_yaml(resolve_config("htc_tiny", ["train.epochs=2"])).splitlines()
    values = [line for line in lines if line.strip() and not line.endswith(":")]
    assert all(" # " in line for line in values)
    columns = {line.index(" # ") for line in values if line.index(" # ") < 60}
    assert len(columns) == 1
    assert any(line.startswith("  epochs: 2 ") and line.endswith("# override #1") for line in lines)


def test_differences_are_told_leaf_by_leaf() -> None:
    left = load_config("htc_tiny")
    right = load_config("htc_tiny", ["optim.lr=0.5", "model.neck.rfp.steps=3", "optim.milestones=[1]"])
    assert diff_configs(left, left) == []
    assert diff_configs(left, right) == [
        Difference("model.neck.rfp", None, Absent.ABSENT),
        Difference("optim.lr", 5e-4, 0.5),
        Difference("optim.milestones", (18, 22), (1,)),
        Difference("model.neck.rfp.steps", Absent.ABSENT, 3),
        Difference("model.neck.rfp.share_backbone", Absent.ABSENT, False),
        Difference("model.neck.rfp.aspp_dilations", Absent.ABSENT, (1, 3, 6, 1)),
        Difference("model.neck.rfp.aspp_init", Absent.ABSENT, "default"),
        Difference("model.neck.rfp.feedback_init", Absent.ABSENT, "default"),
    ]
