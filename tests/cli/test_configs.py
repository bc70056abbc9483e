"""``dsctool configs``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.config.names import shipped_paths


def configs(*words: str) -> Result:
    return CliRunner().invoke(app, ["configs", *words])


def test_list_has_names_and_descriptions() -> None:
    lines = configs("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(shipped_paths())
    assert any(line.endswith("HTC with semantic branch, ResNet-50, 12 epochs") for line in lines)


def test_list_as_json() -> None:
    rows = json.loads(configs("list", "--json", "-").stdout)
    assert {"name": "htc_tiny", "family": "tiny"}.items() <= next(
        row for row in rows if row["name"] == "htc_tiny"
    ).items()
    assert all(row["description"] for row in rows)


def test_show_says_who_set_each_value() -> None:
    lines = configs("show", "htc_tiny", "optim.lr=0.5", "model.neck.rfp={}").stdout.splitlines()
    rows = {line.partition(":")[0].strip(): line for line in lines}
    assert rows["lr"].split() == ["lr:", "0.5", "#", "override", "#1"]
    assert rows["anchor_scale"].split() == ["anchor_scale:", "4.0", "#", "configs/_base_/tiny.yaml:12"]
    assert rows["share_backbone"].split() == ["share_backbone:", "false", "#", "default"]


@pytest.mark.parametrize("plain", [[], ["--plain"]])
def test_what_show_prints_can_be_loaded(plain: list[str], tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(configs("show", "htc_tiny", "optim.lr=1e-4", *plain).stdout)
    assert ("#" in path.read_text()) != bool(plain)
    assert load_config(path) == load_config("htc_tiny", ["optim.lr=1e-4"])


def test_show_as_json() -> None:
    shown = json.loads(configs("show", "htc_tiny", "--json", "-", "optim.lr=0.5").stdout)
    assert shown["config"]["optim"]["lr"] == 0.5
    assert shown["provenance"]["optim.lr"] == "override #1"


def test_diff() -> None:
    lines = configs("diff", "htc_r50_fpn_1x_coco", "htc_r50_fpn_20e_coco").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["description", "optim.milestones", "train.epochs"]
    assert lines[-1].split() == ["train.epochs", "12", "20"]


def test_diff_of_equal_ones() -> None:
    assert configs("diff", "htc_tiny", "htc_tiny").stdout == "no difference\n"


def test_diff_as_json_leaves_out_a_side_without_the_key() -> None:
    rows = json.loads(configs("diff", "htc_tiny", "cascade_mask_rcnn_tiny", "--json", "-").stdout)
    found = {row.pop("key"): row for row in rows}
    assert found["model.cascade.kind"] == {"left": "htc", "right": "cascade_rcnn"}
    assert found["model.cascade.semantic.convs"] == {"left": 2}


def test_validate_accepts_shipped_ones() -> None:
    result = configs("validate", *shipped_paths())
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{name}: ok" for name in shipped_paths()]


def test_validate_names_all_problems_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("base: htc_tiny\ntrain:\n  epochs: 0\n  sead: 1\n")
    result = configs("validate", "a.yaml", "htc_tiny", "b.yaml")
    assert result.exit_code == 1
    assert result.stdout == "htc_tiny: ok\n"
    lines = result.stderr.splitlines()
    assert lines[0] == "dsctool: error: a.yaml: 2 problems"
    assert lines[1:3] == [
        "  a.yaml:3: train.epochs = 0: must be greater than 0",
        "  a.yaml:4: train.sead = 1: unknown key; did you mean train.seed?",
    ]
    assert lines[3].startswith("dsctool: error: b.yaml: no such file")


def test_what_is_published(tmp_path: Path) -> None:
    result = configs("list", "--published", "--json", str(tmp_path / "rows.json"))
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert set(rows) <= shipped_paths().keys()
    assert rows["detectors_htc_r50_1x_coco"] == {
        "name": "detectors_htc_r50_1x_coco",
        "epochs": 12,
        "box": 49.1,
        "mask": 42.6,
        "file": "detectors/detectors_htc_r50_1x_coco/detectors_htc_r50_1x_coco-329b1453.pth",
        "memory": 13.6,
        "by": "mmdet",
        "split": "val2017",
    }
    assert "# published by mmdet: box 49.1, mask 42.6 AP on" in configs("show", "detectors_htc_r50_1x_coco").output
    assert "# published" not in configs("show", "htc_tiny").output


def test_published_numbers_say_which_images_they_are_of(tmp_path: Path) -> None:
    result = configs("list", "--published", "--json", str(tmp_path / "rows.json"))
    assert result.exit_code == 0, result.output
    splits = {row["name"]: row["split"] for row in json.loads((tmp_path / "rows.json").read_text())}
    other = {"detectors_htc_r50_mstrain_40e_coco", "detectors_htc_x101_32x4d_mstrain_40e_coco"}
    assert {name for name, split in splits.items() if split == "test-dev"} == other
    assert set(splits.values()) == {"val2017", "test-dev"}
    lines = configs("list", "--published").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("detectors_htc_r50_mstrain_40e_coco"))
    _, _, cells = " ".join(line.split()).partition(" ")
    assert cells == "51.3 44.4 test-dev 40 - DetectoRS's authors DetectoRS_R50-0f1c8080.pth"
    shown = configs("show", "detectors_htc_x101_32x4d_mstrain_40e_coco").stdout
    assert "box 53.3, mask 45.8 AP on COCO test-dev; weights: DetectoRS_X101-ed983634.pth" in shown
    assert "  nms: soft " in shown
