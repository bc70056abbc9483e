"""Published files become checkpoints with identical weights, and published files again; others are refused."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.config.names import ShippedConfig, config_root, list_configs
from dsctool.config.published import PUBLISHED, Published
from dsctool.errors import CheckpointError
from dsctool.interop import conversion
from dsctool.interop.checkpoint import load_checkpoint, load_model, read_weights
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.interop.conversion import _geometry, _recognised, as_published, convert
from dsctool.interop.layouts import FIRST_VERSION, Unified, unify
from dsctool.interop.loading import read_tensors
from dsctool.interop.published import published_name, rename
from dsctool.models.build import build_detector
from tests.models.undrawn import undrawn_weights
from tests.parity.published import published_keys

CLASSES = ("plum", "date", "fig")


@pytest.fixture(autouse=True)
def undrawn() -> Iterator[None]:
    """A file is compared with the layers of one model after another, and fills what it fits."""
    with undrawn_weights():
        yield


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, Tensor]]:
    """Weights by this project's names, of each small model; no two numbers of a tensor are equal."""
    torch.manual_seed(0)
    return {
        name: build_detector(load_config(name, ["model.num_classes=3"])).state_dict()
        for name in ("htc_tiny", "detectors_tiny", "cascade_mask_rcnn_tiny", "fast_dsc_tiny")
    }


def content(state: dict[str, Tensor], **meta: object) -> dict[str, Any]:
    return {"state_dict": OrderedDict(as_published([], state)["state_dict"]), "meta": {"CLASSES": CLASSES} | meta}


def first_version(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and rows as mmdet 1.x has them, from those of 2.x."""
    old = {}
    for name, value in state.items():
        if "fc_cls" in name:
            value = torch.cat([value[-1:], value[:-1]])
        if ".mask_head." in name and "conv_logits" in name:
            value = torch.cat([torch.full_like(value[:1], 9.0), value])
        old[name.removeprefix("roi_head.").removeprefix("neck." if name.startswith("neck.rfp_") else "-")] = value
    return old


def assert_same(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize(
    ("name", "legacy"),
    [("htc_tiny", False), ("htc_tiny", True), ("detectors_tiny", False), ("cascade_mask_rcnn_tiny", False)],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_there_and_back(
    tmp_path: Path, models: dict[str, dict[str, Tensor]], name: str, version: int, legacy: bool
) -> None:
    file = content(models[name], best_score=np.float64(0.5))
    if version == 1:
        file["state_dict"] = first_version(file["state_dict"])
    if version == 3:
        file["meta"] = {"dataset_meta": {"classes": CLASSES}, "epoch": 3}
    torch.save(file, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    checkpoint = load_checkpoint(tmp_path / "x.pth")
    assert_same(dict(checkpoint.model), models[name])
    assert [(category.id, category.name) for category in checkpoint.categories] == [*enumerate(CLASSES, start=1)]
    assert checkpoint.config.model == fit_limits(load_config(name, ["model.num_classes=3"])).model
    assert_same(
        as_published(checkpoint.categories, checkpoint.model)["state_dict"], content(models[name])["state_dict"]
    )
    assert_same(read_weights(tmp_path / "x.pth"), models[name])


def test_a_model_from_a_published_file_detects(tmp_path: Path, models: dict[str, dict[str, Tensor]]) -> None:
    torch.save(content(models["htc_tiny"]), tmp_path / "x.pth")
    image = torch.rand(1, 3, 64, 96)
    own = build_detector(load_config("htc_tiny", ["model.num_classes=3"])).eval()
    own.load_state_dict(models["htc_tiny"])
    with torch.no_grad():
        (found,), (expected,) = load_model(tmp_path / "x.pth").detect(image), own.detect(image)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("name", ["htc_r50_fpn_1x_coco", "detectors_htc_r50_1x_coco", "fast_dsc_r50_fpn_1x_coco"])
def test_names_there_and_back(name: str) -> None:
    keys = published_keys(name)
    assert [published_name(rename(key)) for key in keys] == list(keys)


@pytest.mark.parametrize(
    "name",
    [
        "cascade_rcnn_r50_rfp_1x_coco",
        "detectors_htc_r50_1x_coco",
        "htc_without_semantic_r50_fpn_1x_coco",
        "htc_x101_64x4d_fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco",
    ],
)
def test_published_models_are_recognised(name: str) -> None:
    state = {key: torch.empty(shape, device="meta") for key, shape in published_keys(name).items()}
    assert _recognised(unify(state), 80, Path("weights.pth")) == name


def test_of_equal_models_the_one_in_the_name_is_taken() -> None:
    state = {key: torch.empty(shape, device="meta") for key, shape in published_keys("htc_r50_fpn_1x_coco").items()}
    for name in ("htc_r50_fpn_1x_coco", "htc_r50_fpn_20e_coco"):
        assert _recognised(unify(state), 80, Path(f"{name}_2020-01234567.pth")) == name


def test_of_equal_models_the_one_that_the_file_is_published_for_is_taken() -> None:
    keys = published_keys("detectors_htc_r50_1x_coco")
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    name = _recognised(unify(state), 80, Path("DetectoRS_R50-0f1c8080.pth"))
    assert name == "detectors_htc_r50_mstrain_40e_coco"


def test_a_published_file_of_two_models_with_the_same_layers(
    models: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As X-101's of the DetectoRS authors, which is measured with soft suppression."""
    monkeypatch.setitem(PUBLISHED, "fast_dsc_tiny", Published(1.0, 1.0, "folder/f-01234567.pth"))
    found = convert(content(models["fast_dsc_tiny"]), Path("f-01234567.pth"))
    assert "configuration: fast_dsc_tiny, by the shapes of the weights" in found.account


def geometry_said(file: dict[str, Any], **given: str) -> list[str]:
    account = convert(file, Path("x.pth"), **given).account
    return [line for line in account if line.startswith("geometry")]


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny"])
def test_the_first_versions_geometry_is_offered(models: dict[str, dict[str, Tensor]], name: str) -> None:
    file = content(models[name])
    assert geometry_said(file) == []
    (said,) = geometry_said(file | {"state_dict": first_version(file["state_dict"])})
    assert said.startswith("geometry: current")
    assert said.endswith("predict and eval model.geometry=mmdet1")


def test_soft_suppression_is_offered_for_the_large_model_of_the_authors() -> None:
    """By its parts: DetectoRS on a ResNeXt."""
    old = Unified({}, FIRST_VERSION, ())
    (said,) = _geometry(load_config("detectors_htc_x101_32x4d_20e_coco"), old)
    assert said.endswith("model.geometry=mmdet1 postprocess.nms=soft postprocess.score_threshold=0.001")
    for name in ("detectors_htc_r50_1x_coco", "htc_x101_32x4d_fpn_16x1_20e_coco"):
        (said,) = _geometry(load_config(name), old)
        assert said.endswith("model.geometry=mmdet1")


def test_a_model_of_the_files_geometry_is_taken(
    tmp_path: Path, models: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where weights fit one of each."""
    own = tmp_path / "old.yaml"
    own.write_text(f"base: {config_root()}/tiny/htc_tiny.yaml\nmodel: {{geometry: mmdet1}}\n")
    known = list_configs()
    shown = [*known, ShippedConfig(str(own), "tiny", own, "")]
    monkeypatch.setattr(conversion, "list_configs", lambda: shown)
    file = content(models["htc_tiny"])
    assert convert(file, Path("x.pth")).config_name == "htc_tiny"
    found = convert(file | {"state_dict": first_version(file["state_dict"])}, Path("x.pth"))
    assert (found.config_name, found.config.model.geometry) == (str(own), "mmdet1")
    assert "geometry: mmdet1, in which these weights were trained" in found.account


def test_dsc_files_do_not_say_which_they_are(models: dict[str, dict[str, Tensor]]) -> None:
    file = content(models["fast_dsc_tiny"])
    with pytest.raises(CheckpointError, match=r"f\.pth: its weights fit 2 different models.*dsc_tiny.*--config NAME"):
        convert(file, Path("f.pth"))
    found = convert(file, Path("f.pth"), config="fast_dsc_tiny")
    assert_same(found.state, models["fast_dsc_tiny"])
    assert "configuration: fast_dsc_tiny" in found.account


def test_missing_counters_are_no_fault(models: dict[str, dict[str, Tensor]]) -> None:
    file = content(models["htc_tiny"])
    kept = {name: value for name, value in file["state_dict"].items() if "num_batches" not in name}
    found = convert(file | {"state_dict": kept}, Path("x.pth"))
    assert_same(found.state, models["htc_tiny"])


def test_classes(models: dict[str, dict[str, Tensor]]) -> None:
    file = content(models["htc_tiny"])
    for meta, names in (
        ({"CLASSES": ("one", "two")}, ["class 1", "class 2", "class 3"]),
        ({}, ["class 1", "class 2", "class 3"]),
        ({"CLASSES": ["a", "b", "c"]}, ["a", "b", "c"]),
    ):
        assert [each.name for each in convert(file | {"meta": meta}, Path("x.pth")).categories] == names
    assert (len(COCO_CATEGORIES), COCO_CATEGORIES[-1].id, COCO_CATEGORIES[11].id) == (80, 90, 13)


def test_the_hash_in_the_name(tmp_path: Path, models: dict[str, dict[str, Tensor]]) -> None:
    torch.save(content(models["htc_tiny"]), tmp_path / "x.pth")
    found = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()[:8]
    for name, said in ((found, f"hash: {found}, as the name says"), ("01234567", f"hash: {found}, but the name says")):
        path = (tmp_path / "x.pth").rename(tmp_path / f"x-{name}.pth")
        (line,) = [line for line in convert(read_tensors(path), path).account if line.startswith("hash")]
        assert line.startswith(said)
        path.rename(tmp_path / "x.pth")


def test_what_does_not_fit_is_named(models: dict[str, dict[str, Tensor]]) -> None:
    file = content(models["htc_tiny"])
    state = file["state_dict"]
    name = "rpn_head.rpn_conv.weight"
    for changed, reason in (
        (state | {name: state[name][:, :1]}, rf"shape of {name}"),
        ({key: value for key, value in state.items() if key != name}, r"missing: rpn\.conv\.weight"),
        (state | {"extra.weight": torch.zeros(1)}, r"unexpected: extra\.weight"),
    ):
        with pytest.raises(CheckpointError, match=rf"x\.pth: not weights of htc_tiny(.|\n)*{reason}"):
            convert({"state_dict": changed}, Path("x.pth"), config="htc_tiny")
        with pytest.raises(CheckpointError, match=r"x\.pth: the weights fit none of the shipped.*--config"):
            convert({"state_dict": changed}, Path("x.pth"))


def test_weights_of_other_families() -> None:
    with pytest.raises(CheckpointError, match=r"x\.pth: not the weights of a cascade.*backbone\.a"):
        convert({"state_dict": {"backbone.a": torch.zeros(1)}}, Path("x.pth"))


class HistoryBuffer:
    """As a training program keeps them beside the weights."""

    def __init__(self) -> None:
        self.values = [1]


def test_classes_of_other_programs_are_refused_by_name(tmp_path: Path, models: dict[str, dict[str, Tensor]]) -> None:
    torch.save(content(models["htc_tiny"]) | {"message_hub": HistoryBuffer()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: .*it holds .*HistoryBuffer.*`state_dict` and `meta` alone"):
        load_checkpoint(tmp_path / "x.pth")


def test_cut_short(tmp_path: Path, models: dict[str, dict[str, Tensor]]) -> None:
    torch.save(content(models["htc_tiny"]), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"x\.pth: damaged or cut short"):
        load_checkpoint(tmp_path / "x.pth")
