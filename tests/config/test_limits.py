"""Limits that follow the data: what ``auto`` gives, and that published numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsctool.config.dump import config_to_yaml, diff_configs
from dsctool.config.limits import (
    PROPOSALS,
    RESULTS,
    RULES,
    as_overrides,
    fit_limits,
    keep_limits,
    open_limits,
    published_limits,
    too_small,
)
from dsctool.config.loading import config_from_mapping, load_config
from dsctool.config.names import shipped_paths
from dsctool.config.schema import Config
from dsctool.errors import ConfigError

KEYS = [rule.key for rule in RULES]
PUBLISHED = {
    "postprocess.max_per_image": 100,
    "postprocess.mask_candidates": 300,
    "model.rpn.test_max_proposals": 1000,
    "model.rpn.test_pre_nms": 1000,
    "model.rpn.train_max_proposals": 2000,
    "model.rpn.train_pre_nms": 2000,
}
TINY = [name for name in shipped_paths() if name.endswith("_tiny")]
OTHERS = [name for name in shipped_paths() if name not in TINY]


def values(config: Config) -> dict[str, int | str]:
    return {rule.key: rule.of(config) for rule in RULES}


@pytest.mark.parametrize("name", OTHERS)
def test_published_configurations_keep_their_numbers(name: str) -> None:
    config = load_config(name)
    assert values(config) == PUBLISHED
    assert fit_limits(config, instances=4000) == config


@pytest.mark.parametrize("name", TINY)
def test_own_configurations_follow_the_data(name: str) -> None:
    config = load_config(name)
    assert open_limits(config) == KEYS
    few, many = fit_limits(config, instances=10), fit_limits(config, instances=400)
    assert list(values(few).values()) == [100, 300, 320, 320, 640, 640]
    assert list(values(many).values()) == [600, 1200, 2000, 4000, 2000, 4000]
    assert {change.key for change in diff_configs(config, many)} == set(KEYS)


@pytest.mark.parametrize("name", OTHERS)
def test_crowded_opens_the_limits_of_a_published_configuration_and_nothing_else(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: [{name}, _base_/crowded.yaml]\n")
    config = load_config(tmp_path / "mine.yaml")
    assert open_limits(config) == KEYS
    assert fit_limits(config) == load_config(name), "without data"
    assert values(fit_limits(config, instances=400))["postprocess.max_per_image"] == 600


@given(instances=st.integers(0, 5000), more=st.integers(0, 5000), side=st.integers(1, 2000))
def test_limits_leave_room_and_grow_with_the_data(instances: int, more: int, side: int) -> None:
    sizes = [f"data.{name}.short_sides=[{side}]" for name in ("train_resize", "test_resize")]
    config = load_config("htc_tiny", sizes)
    fitted, larger = (fit_limits(config, instances=count) for count in (instances, instances + more))
    assert open_limits(fitted) == []
    assert fit_limits(fitted, instances=instances + more) == fitted, "numbers are not touched"
    assert int(RESULTS.of(fitted)) >= max(100, instances)
    assert int(PROPOSALS.of(fitted)) >= instances
    for rule in RULES:
        assert int(rule.of(fitted)) <= int(rule.of(larger))
        assert side < 800 or int(rule.of(fitted)) >= rule.published
    assert too_small(fitted, instances, training=True) == []


def test_one_number_leaves_the_others_open() -> None:
    config = load_config("htc_tiny", ["postprocess.max_per_image=50"])
    assert open_limits(config) == KEYS[1:]
    assert values(fit_limits(config, instances=400))["postprocess.max_per_image"] == 50


def test_what_is_stored_counts() -> None:
    stored = fit_limits(load_config("htc_tiny"), instances=400)
    assert keep_limits(load_config("htc_tiny"), stored) == stored
    given_ = keep_limits(load_config("htc_tiny", ["postprocess.max_per_image=50"]), stored)
    assert [change.key for change in diff_configs(given_, stored)] == ["postprocess.max_per_image"]


def test_both_forms_survive_files_and_checkpoints(tmp_path: Path) -> None:
    for config in (load_config("htc_tiny"), fit_limits(load_config("htc_tiny"), instances=400)):
        (tmp_path / "config.yaml").write_text(config_to_yaml(config))
        assert load_config(tmp_path / "config.yaml") == config
        assert config_from_mapping(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "null", "true", "[auto]"])
def test_nothing_but_a_number_or_auto(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("htc_tiny", [f"{key}={value}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"override #1: {key} = ")
    assert line.endswith(": must be a whole number greater than 0, or auto")


def test_what_to_set() -> None:
    config = published_limits()
    assert values(config) == PUBLISHED
    assert too_small(config, 60) == []
    rules = too_small(config, 400)
    assert as_overrides(rules, config, 400) == (
        "postprocess.max_per_image=600 model.rpn.test_max_proposals=2000 model.rpn.test_pre_nms=4000"
    )
    words = as_overrides(rules, config, 400).split()
    assert too_small(load_config("htc_r50_fpn_1x_coco", words), 400) == [], "these words are enough"
    masks = load_config("htc_r50_fpn_1x_coco", ["postprocess.nms=mask"])
    assert [rule.key for rule in too_small(masks, 400, training=True)] == [
        key for key in KEYS if "train_max" not in key
    ]
