"""Files: base chains, merge rules, names, provenance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dsctool.config.loading import config_from_mapping, load_config, resolve_config
from dsctool.config.model_schema import CascadeRcnnConfig, DscConfig, HtcConfig, RfpConfig
from dsctool.config.names import shipped_paths
from dsctool.config.schema import SCHEMA_VERSION
from dsctool.errors import ConfigError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the current folder, an empty one."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


class TestBase:
    def test_mappings_merge_while_scalars_and_lists_replace(self, write: Write) -> None:
        write("low.yaml", "model: {cascade: {kind: htc, samples: 64}}\noptim: {lr: 0.1, milestones: [1, 2, 3]}\n")
        write("top.yaml", "base: low.yaml\nmodel: {cascade: {positive_fraction: 0.5}}\noptim: {milestones: [7]}\n")
        config = load_config("top.yaml")
        assert (config.model.cascade.samples, config.model.cascade.positive_fraction) == (64, 0.5)
        assert (config.optim.lr, config.optim.milestones) == (0.1, (7,))

    def test_is_relative_to_the_file_and_a_list_goes_from_left_to_right(self, write: Write) -> None:
        write("blocks/a.yaml", "model: {cascade: {kind: htc}}\noptim: {lr: 0.1}\ntrain: {epochs: 3}\n")
        write("blocks/b.yaml", "base: a.yaml\noptim: {lr: 0.2}\n")
        write("blocks/c.yaml", "optim: {lr: 0.3}\n")
        write("runs/top.yaml", "base: [../blocks/b.yaml, ../blocks/c.yaml]\n")
        config = load_config("runs/top.yaml")
        assert (config.optim.lr, config.train.epochs) == (0.3, 3)

    def test_may_be_a_shipped_name(self, write: Write) -> None:
        write("mine.yaml", "base: htc_tiny\ntrain: {epochs: 2}\n")
        assert load_config("mine.yaml") == load_config("htc_tiny", ["train.epochs=2"])

    def test_null_switches_a_block_off_and_a_mapping_makes_one(self, write: Write) -> None:
        write("low.yaml", "model: {cascade: {kind: htc}, neck: {rfp: {steps: 3, share_backbone: true}}}\n")
        write("off.yaml", "base: low.yaml\nmodel: {neck: {rfp: null}}\n")
        write("on.yaml", "base: off.yaml\nmodel: {neck: {rfp: {steps: 4}}}\n")
        assert load_config("off.yaml").model.neck.rfp is None
        assert load_config("on.yaml").model.neck.rfp == RfpConfig(steps=4)

    def test_a_new_kind_replaces_the_block_whole(self, write: Write) -> None:
        write("low.yaml", "model: {cascade: {kind: htc, samples: 64, semantic: {convs: 2}}}\n")
        write("other.yaml", "base: low.yaml\nmodel: {cascade: {kind: dsc, roi_size: 7}}\n")
        write("same.yaml", "base: low.yaml\nmodel: {cascade: {kind: htc, positive_fraction: 0.5}}\n")
        assert load_config("other.yaml").model.cascade == DscConfig(kind="dsc", roi_size=7)
        assert load_config("same.yaml").model.cascade.samples == 64

    def test_a_kind_that_differs_from_the_default_replaces_too(self, write: Write) -> None:
        write("low.yaml", "model: {cascade: {kind: htc}}\noptim: {lr: 0.3}\n")
        write("top.yaml", "base: low.yaml\noptim: {kind: adamw}\n")
        write("same.yaml", "base: low.yaml\noptim: {kind: sgd}\n")
        assert load_config("top.yaml").optim.lr == 0.02
        assert load_config("same.yaml").optim.lr == 0.3

    def test_circle_is_refused(self, write: Write) -> None:
        write("a.yaml", "base: b.yaml\n")
        write("b.yaml", "\nbase: [a.yaml]\n")
        with pytest.raises(
            ConfigError, match=r"^b\.yaml:2: base = a\.yaml: goes in a circle: a.yaml -> b.yaml -> a.yaml$"
        ):
            load_config("a.yaml")

    def test_two_ways_to_one_file_are_no_circle(self, write: Write) -> None:
        write("root.yaml", "model: {cascade: {kind: htc}}\n")
        write("left.yaml", "base: root.yaml\noptim: {lr: 0.1}\n")
        write("right.yaml", "base: root.yaml\ntrain: {epochs: 3}\n")
        write("top.yaml", "base: [left.yaml, right.yaml]\n")
        config = load_config("top.yaml")
        assert (config.optim.lr, config.train.epochs) == (0.1, 3)


class TestYaml12:
    def test_numbers_and_words(self, write: Write) -> None:
        write("a.yaml", "base: htc_tiny\ndescription: off\noptim: {lr: 1e-4}\ndata: {train: {split: no}}\n")
        config = load_config("a.yaml")
        assert (config.optim.lr, config.description, config.data.train.split) == (1e-4, "off", "no")

    def test_a_whole_number_does_for_a_float(self, write: Write) -> None:
        write("a.yaml", "base: htc_tiny\noptim: {lr: 1}\n")
        assert isinstance(load_config("a.yaml").optim.lr, float)

    def test_anchors(self, write: Write) -> None:
        write("a.yaml", "base: htc_tiny\ndata:\n  train_resize: &size {short_sides: [64]}\n  test_resize: *size\n")
        config = load_config("a.yaml")
        assert config.data.train_resize.short_sides == config.data.test_resize.short_sides == (64,)


class TestOverrides:
    def test_values_are_yaml(self) -> None:
        words = ["optim.lr=1e-4", "model.cascade.iou_thresholds=[0.5, 0.6, 0.75]", "model.backbone.weights=null"]
        config = load_config("htc_r50_fpn_1x_coco", words)
        assert config.optim.lr == 1e-4
        assert config.model.cascade.iou_thresholds == (0.5, 0.6, 0.75)
        assert config.model.backbone.weights is None

    def test_last_one_wins(self) -> None:
        assert load_config("htc_tiny", ["train.epochs=2", "train.epochs=3"]).train.epochs == 3

    def test_a_key_makes_the_block_that_is_null(self) -> None:
        assert load_config("htc_tiny", ["model.neck.rfp.steps=3"]).model.neck.rfp == RfpConfig(steps=3)

    def test_null_then_a_key_makes_a_fresh_block(self) -> None:
        words = ["model.cascade.semantic={convs: 7, loss_weight: 9}", "model.neck.rfp.share_backbone=true"]
        fresh = [*words, "model.neck.rfp=null", "model.neck.rfp.steps=3"]
        assert load_config("htc_tiny", fresh).model.neck.rfp == RfpConfig(steps=3)

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_new_kind_replaces_the_block_wherever_the_word_stands(self, turned: bool) -> None:
        words = ["model.cascade.kind=dsc", "model.cascade.roi_size=7"]
        cascade = load_config("htc_tiny", words[::-1] if turned else words).model.cascade
        assert cascade == DscConfig(kind="dsc", roi_size=7)

    def test_the_same_kind_changes_nothing(self) -> None:
        assert load_config("htc_tiny", ["model.cascade.kind=htc"]) == load_config("htc_tiny")

    def test_a_mapping_merges(self) -> None:
        cascade = load_config("htc_tiny", ["model.cascade={samples: 32}"]).model.cascade
        assert isinstance(cascade, HtcConfig)
        assert (cascade.samples, cascade.box_head.channels) == (32, 256)

    def test_a_whole_cascade_of_another_kind(self) -> None:
        cascade = load_config("htc_tiny", ["model.cascade={kind: cascade_rcnn, samples: 32}", "data.semantic=none"])
        assert cascade.model.cascade == CascadeRcnnConfig(samples=32)

    def test_a_value_may_hold_an_equals_sign(self) -> None:
        assert load_config("htc_tiny", ["train.weights=a=b.pt"]).train.weights == "a=b.pt"


class TestNames:
    def test_an_existing_file_comes_before_a_name(self, write: Write) -> None:
        write("htc_tiny", "base: htc_r50_fpn_1x_coco\ndescription: mine\n")
        assert load_config("htc_tiny").description == "mine"

    def test_names_are_unique_and_building_blocks_have_none(self) -> None:
        root = shipped_paths()["htc_tiny"].parents[1]
        files = [path for path in root.rglob("*.yaml") if not {"_base_", "ablations"} & set(path.parts)]
        assert len(files) == len(shipped_paths())
        assert "coco" not in shipped_paths()

    def test_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(
            ConfigError, match=r"unknown configuration 'htc_r50_fpn_1x'.*did you mean htc_r50_fpn_1x_coco"
        ):
            load_config("htc_r50_fpn_1x")

    def test_missing_file(self, write: Write) -> None:
        with pytest.raises(ConfigError, match=r"^nowhere/htc_tiny.yaml: no such file; did you mean htc_tiny"):
            load_config("nowhere/htc_tiny.yaml")
        with pytest.raises(ConfigError, match=r"^nowhere: no such file"):
            load_config(Path("nowhere"))

    def test_folder(self, write: Write) -> None:
        write("runs.yaml/x", "")
        with pytest.raises(ConfigError, match="is a folder, not a file"):
            load_config("runs.yaml")


class TestProvenance:
    def test_every_leaf_names_who_set_it(self, write: Write) -> None:
        write("low.yaml", "model:\n  cascade: {kind: htc}\noptim:\n  lr: 0.1\n  momentum: 0.8\n")
        write("top.yaml", "# mine\nbase: low.yaml\noptim:\n  lr: 0.2\ndata: {mean: [1, 2, 3]}\n")
        provenance = resolve_config("top.yaml", ["train.epochs=2", "model.neck.rfp.steps=3"]).provenance
        assert provenance["optim.lr"] == "top.yaml:4"
        assert provenance["optim.momentum"] == "low.yaml:5"
        assert provenance["data.mean"] == "top.yaml:5"
        assert provenance["model.cascade.kind"] == "low.yaml:2"
        assert provenance["train.epochs"] == "override #1"
        assert provenance["model.neck.rfp.steps"] == "override #2"
        assert provenance["model.neck.rfp.share_backbone"] == "default"
        assert "model.neck.rfp" not in provenance

    def test_a_block_switched_off_is_a_leaf(self, write: Write) -> None:
        write("a.yaml", "base: htc_tiny\nmodel:\n  neck:\n    rfp: null\n")
        provenance = resolve_config("a.yaml").provenance
        assert provenance["model.neck.rfp"] == "a.yaml:4"
        assert provenance["model.backbone.sac"] == "default"

    def test_values_of_a_replaced_block_are_forgotten(self, write: Write) -> None:
        provenance = resolve_config("htc_tiny", ["model.cascade.kind=dsc"]).provenance
        assert provenance["model.cascade.samples"] == "default"

    def test_shipped_files_are_shown_from_configs(self) -> None:
        assert resolve_config("htc_tiny").provenance["description"] == "configs/tiny/htc_tiny.yaml:1"


class TestMapping:
    def test_what_a_checkpoint_stores_comes_back(self) -> None:
        config = load_config("htc_r50_fpn_20e_coco", ["model.neck.rfp={}"])
        assert config_from_mapping(config.model_dump(mode="json")) == config
        assert config_from_mapping(config.model_dump()) == config

    def test_a_newer_schema_is_explained(self) -> None:
        mapping = load_config("htc_tiny").model_dump(mode="json") | {"schema_version": SCHEMA_VERSION + 1, "news": 1}
        with pytest.raises(ConfigError, match=r"^x\.pt: schema_version = \d: newer than this dsctool.*update dsctool$"):
            config_from_mapping(mapping, source="x.pt")

    def test_problems_name_the_source(self) -> None:
        with pytest.raises(ConfigError, match=r"^x\.pt: model: required"):
            config_from_mapping({}, source="x.pt")
