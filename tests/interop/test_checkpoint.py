"""Checkpoints are self-contained, never half-written, and say what is wrong with them."""

from __future__ import annotations

import errno
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.errors import CheckpointError, DiskFullError
from dsctool.interop.checkpoint import (
    Checkpoint,
    OperatingPoint,
    TrainingState,
    load_checkpoint,
    load_model,
    read_weights,
    save_checkpoint,
    store_operating_point,
)
from tests.engine.fakes import FakeDetector, tiny_config
from tests.models.tiny import SMALL, tiny_detector

CATEGORIES = [Category(3, "date"), Category(17, "fig")]


@pytest.fixture
def checkpoint() -> Checkpoint:
    model = FakeDetector(num_classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return Checkpoint(
        config=tiny_config(),
        categories=CATEGORIES,
        model=model.state_dict(),
        metrics={"bbox": {"AP": 0.5}, "segm": None},
        training=TrainingState(step=7, epoch=1, batch=3, optimizer=optimizer.state_dict(), best=0.5),
    )


@pytest.fixture
def saved(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    return tmp_path / "last.pt"


def test_everything_comes_back(saved: Path, checkpoint: Checkpoint) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.config == checkpoint.config
    assert loaded.config.data.mean == checkpoint.config.data.mean  # the normalisation travels
    assert loaded.categories == CATEGORIES
    assert loaded.metrics == checkpoint.metrics
    assert all(torch.equal(value, loaded.model[name]) for name, value in checkpoint.model.items())
    assert loaded.training is not None
    assert checkpoint.training is not None
    assert (loaded.training.step, loaded.training.epoch, loaded.training.batch) == (7, 1, 3)
    for index, state in checkpoint.training.optimizer["state"].items():
        assert torch.equal(state["momentum_buffer"], loaded.training.optimizer["state"][index]["momentum_buffer"])


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A checkpoint of a real detector of three classes."""
    categories = [*CATEGORIES, Category(20, "plum")]
    config = load_config("htc_tiny", SMALL)
    save_checkpoint(tmp_path / "best.pt", Checkpoint(config, categories, tiny_detector().state_dict()))
    return tmp_path / "best.pt"


def test_load_model(detector: Path) -> None:
    model = load_model(detector)
    assert not model.training
    assert model.categories == load_checkpoint(detector).categories
    assert model.config == fit_limits(load_config("htc_tiny", SMALL))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in tiny_detector().state_dict().items())


def test_weights_of_another_model(detector: Path) -> None:
    rewrite(detector, model=tiny_detector(overrides=["model.num_classes=9"]).state_dict())
    with pytest.raises(CheckpointError, match=r"best\.pt.*do not fit(.|\n)*classifier\.weight"):
        load_model(detector)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_cut_short(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged or cut short"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"\x00" * 100, b"name: htc_tiny\n", b"PK\x03\x04" + b"\x01" * 200, b"\x80\x02."])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt: (not a file of plain tensors|damaged)"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_file_of_another_program(tmp_path: Path) -> None:
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}, "meta": {}}, tmp_path / "htc.pth")
    with pytest.raises(CheckpointError, match=r"htc\.pth: not the weights of a cascade"):
        load_checkpoint(tmp_path / "htc.pth")


@pytest.mark.parametrize("key", ["config", "model", "categories"])
@pytest.mark.parametrize("value", [None, "text", {1: 2}, [{"id": "x", "name": "y"}]])
def test_parts_of_another_kind(saved: Path, key: str, value: object) -> None:
    payload = torch.load(saved, weights_only=True)
    torch.save(payload | {key: value}, saved)
    with pytest.raises(CheckpointError, match=r"last\.pt: (damaged dsctool checkpoint|its configuration)"):
        load_checkpoint(saved)


class Payload:
    """Code that unpickling would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": Payload()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(CheckpointError, match="not a file of plain tensors"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: no such file"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match=r"a folder; give a file in it, such as best\.pt"):
        load_checkpoint(tmp_path)


def rewrite(path: Path, **changes: object) -> None:
    torch.save(torch.load(path, weights_only=True) | changes, path)


def test_newer_version(saved: Path) -> None:
    rewrite(saved, version=99)
    message = r"last\.pt: written by a newer dsctool: checkpoint version 99, .* reads version 1\. Update dsctool"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize("version", [0, None, "1"])
def test_a_version_that_never_was(saved: Path, version: object) -> None:
    rewrite(saved, version=version)
    with pytest.raises(CheckpointError, match=r"damaged dsctool checkpoint \(version"):
        load_checkpoint(saved)


def test_a_newer_training_state(saved: Path) -> None:
    training = torch.load(saved, weights_only=True)["training"]
    rewrite(saved, training=training | {"scaler": 1.0, "ema": {}})
    message = (
        r"last\.pt: written by a newer dsctool: .* does not know scaler, ema in its training state\. Update dsctool"
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)
    del training["step"]
    rewrite(saved, training=training)
    with pytest.raises(CheckpointError, match=r"damaged dsctool checkpoint .*step"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "words"), [({"schema_version": 2}, "newer than this dsctool"), ({"ema": 0.999}, "ema.*unknown key")]
)
def test_the_configuration_of_a_newer_release(
    saved: Path, checkpoint: Checkpoint, change: dict[str, object], words: str
) -> None:
    rewrite(saved, config=checkpoint.config.model_dump(mode="json") | change)
    with pytest.raises(
        CheckpointError, match=rf"last\.pt: .*another release of dsctool wrote it: update(.|\n)*{words}"
    ):
        load_checkpoint(saved)


def test_weights_are_translated_by_the_kind_of_the_file(tmp_path: Path, saved: Path, checkpoint: Checkpoint) -> None:
    """Names of a checkpoint stay, also where they look like published ones."""
    name, own = "rpn_head.rpn_cls.bias", "rpn.objectness.bias"
    torch.save({"state_dict": {name: torch.zeros(1)}, "meta": {}}, tmp_path / "published.pth")
    assert read_weights(tmp_path / "published.pth").keys() == {own}
    rewrite(saved, model={name: torch.zeros(1)})
    assert read_weights(saved).keys() == {name}


def test_a_configuration_that_is_not_valid(saved: Path, checkpoint: Checkpoint) -> None:
    config = checkpoint.config.model_dump(mode="json")
    config["optim"]["lr"] = -1
    rewrite(saved, config=config)
    with pytest.raises(CheckpointError, match=r"last\.pt(.|\n)*optim\.lr"):
        load_checkpoint(saved)


def test_missing_parts(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    del content["categories"]
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match=r"damaged dsctool checkpoint.*categories"):
        load_checkpoint(saved)


def test_a_failed_save_keeps_the_old_file(saved: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(payload: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskFullError, match="the disk is full: 0"):
        save_checkpoint(saved, checkpoint)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_the_configuration_is_plain(saved: Path) -> None:
    """Readable without this package: mappings, lists, numbers and text."""
    content = torch.load(saved, weights_only=True)
    assert content["format"] == "dsctool-checkpoint"
    assert content["categories"] == [{"id": 3, "name": "date"}, {"id": 17, "name": "fig"}]
    assert content["config"]["schema_version"] == 1
    assert Config.model_validate(content["config"]) == tiny_config()


# --- operating points -------------------------------------------------------------------------------

POINT = OperatingPoint(
    thresholds=(0.25, 0.5), best="f1", kind="segm", iou=0.5, images=12, overrides=("postprocess.nms=mask",)
)


def same(one: object, other: object) -> bool:
    """To the bit, types and order included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_an_operating_point_leaves_all_else_as_it_is(saved: Path) -> None:
    """Also what this release does not know, and what it would write otherwise."""
    rewrite(saved, from_elsewhere={"a": [1, 2.0]}, metrics={"segm": None, "bbox": {"AP": 1}})
    before = torch.load(saved, weights_only=True)
    assert load_checkpoint(saved).operating_point is None
    for thresholds in ((0.25, 0.5), (0.0, 1.0)):
        point = replace(POINT, thresholds=thresholds)
        store_operating_point(saved, point)
        assert load_checkpoint(saved).operating_point == point
        after = torch.load(saved, weights_only=True)
        assert after.pop("operating_point")["thresholds"] == thresholds
        assert same(before, after)
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_an_operating_point_travels_with_what_is_saved_again(saved: Path) -> None:
    store_operating_point(saved, POINT)
    save_checkpoint(saved, load_checkpoint(saved))
    assert load_checkpoint(saved).operating_point == POINT


def test_no_room_for_an_operating_point(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFullError):
        store_operating_point(saved, POINT)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


def test_an_operating_point_of_other_classes(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match="has 2 classes, there are thresholds for 1"):
        store_operating_point(saved, replace(POINT, thresholds=(0.5,)))
    assert saved.read_bytes() == before


@pytest.mark.parametrize("thresholds", [(0.5, 2.0), (0.5,), None, "ab"])
def test_an_operating_point_that_is_none(saved: Path, thresholds: object) -> None:
    for stored in (asdict(POINT) | {"thresholds": thresholds}, {"thresholds": (0.5, 0.5)}, [thresholds]):
        rewrite(saved, operating_point=stored)
        with pytest.raises(CheckpointError, match=r"last\.pt: damaged dsctool checkpoint"):
            load_checkpoint(saved)


def test_an_operating_point_of_a_newer_release_says_more(saved: Path) -> None:
    rewrite(saved, operating_point=asdict(POINT) | {"view": "tta"})
    assert load_checkpoint(saved).operating_point == POINT
