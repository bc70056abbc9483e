"""``dsctool benchmark``: the tables, the files, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.cli.benchmark import _short
from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.data.synthetic.scenes import CLASSES
from dsctool.engine.benchmark.plan import Plan, memory
from dsctool.engine.benchmark.subjects import mask_rcnn
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from dsctool.terms import Size
from dsctool.visualize.tradeoff import Point, _frontier, save_tradeoff
from tests.models.tiny import NARROW


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["benchmark", *map(str, words), "--device", "cpu"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small matrix product; and no process for every model, but where a test wants it."""
    from dsctool.engine.benchmark import measure, plan

    monkeypatch.setitem(measure.PEAK_SIDE, "cpu", 128)
    monkeypatch.setattr(plan, "memory", lambda model, plan: 3 << 29)


def checkpoint(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    few = ["model.rpn.test_max_proposals=40", "postprocess.max_per_image=20", f"model.num_classes={len(CLASSES)}"]
    config = load_config(name, [*NARROW, *few, "data.test_resize.short_sides=[64]"])
    path = folder / name / "best.pt"
    path.parent.mkdir()
    categories = [Category(number, each) for number, each in enumerate(CLASSES, start=1)]
    save_checkpoint(path, Checkpoint(config, categories, build_detector(config).state_dict()))
    return path


def test_tables_and_file(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    result = run("htc_tiny", "fast_dsc_tiny", "--size", "64x96", "--rounds", "2", "--json", numbers)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "htc_tiny: 100 instances in a picture" in lines
    for stage in ("decode", "resize", "backbone", "neck", "proposals", "semantic branch", "stage 3", "masks", "all"):
        assert sum(line.startswith(stage) for line in lines) == 2, stage
    (header,) = (line for line in lines if line.startswith("model "))
    assert header.split("  ")[0] == "model"
    assert "1.50 GiB" in result.stdout
    assert "matrix products in float32:" in lines[-1]
    found = json.loads(numbers.read_text())
    assert found["peak"]["type"] == "float32"
    assert found["setting"] == {"size": "64x96", "batch": 1, "rounds": 2, "train": False, "overrides": []}
    for name in ("htc_tiny", "fast_dsc_tiny"):
        model = found["models"][name]
        assert model["seconds"]["least"] <= model["seconds"]["median"] <= model["seconds"]["most"]
        parts = sum(stage["median"] for stage in model["stages"].values())
        assert parts == pytest.approx(model["seconds"]["median"], rel=0.5)
        assert 0 < model["of_peak"] < 5
        assert model["flops"]["backbone"] > 1e6
    assert found["models"]["htc_tiny"]["ratio"]["median"] == 1
    assert found["environment"]["torch"] == torch.__version__


def test_precision_beside_time(tmp_path: Path, synthetic_root: Path) -> None:
    """Of pictures in a folder, with a plot."""
    first, second = checkpoint(tmp_path, "htc_tiny"), checkpoint(tmp_path, "cascade_mask_rcnn_tiny")
    plot, numbers = tmp_path / "plot.png", tmp_path / "numbers.json"
    result = run(
        first, second, "--images", synthetic_root / "val", "--pictures", "2", "--batch", "2", "--rounds", "1",
        "--data", synthetic_root, "--plot", plot, "--json", numbers,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "box AP" in result.stdout
    with Image.open(plot) as picture:
        assert picture.size[0] > 800
    found = json.loads(numbers.read_text())["models"][str(first)]
    assert set(found["AP"]) == {"bbox", "segm"}


@pytest.mark.parametrize("name", ["detectors_tiny", "fast_dsc_tiny"])
def test_training(name: str) -> None:
    result = run(name, *NARROW, "--train", "--batch", "2", "--rounds", "1", "--size", "96x96")
    assert result.exit_code == 0, result.output
    assert "annotated instances in a picture" in result.stdout
    for stage in ("load", "backbone", "proposals", "samples, losses", "stage 1", "backward, step"):
        assert any(line.startswith(stage) for line in result.stdout.splitlines()), stage


FOUR = ["model.backbone.in_channels=4", "data.mean=[1,2,3,4]", "data.std=[1,2,3,4]"]


@pytest.mark.parametrize(
    "words",
    [FOUR, ["data.channels=[7,3,2]", "data.page=2", "data.image_range=[0, 4095]"]],
    ids=["four", "far"],
)
def test_a_drawn_picture_has_the_channels_of_the_model(words: list[str]) -> None:
    result = run("htc_tiny", *NARROW, *words, "--size", "64x64", "--rounds", "1")
    assert result.exit_code == 0, result.output
    assert "htc_tiny: 100 instances in a picture\n" in result.stdout


def test_training_and_a_yardstick_of_four_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsctool.engine.benchmark import plan

    monkeypatch.setattr(plan, "mask_rcnn", lambda size, device: SmallMaskRCNN())
    words = [*NARROW, *FOUR, "--size", "64x64", "--rounds", "1", "--yardstick"]
    for more in ([], ["--train"]):
        result = run("htc_tiny", *words, *more)
        assert result.exit_code == 0, result.output


def test_by_tiles(tmp_path: Path) -> None:
    """As many windows as cover the picture; others look at all of it."""
    numbers = tmp_path / "numbers.json"
    path, whole = checkpoint(tmp_path, "htc_tiny"), checkpoint(tmp_path, "cascade_mask_rcnn_tiny")
    words = ["data.tiles.size=64", "--rounds", "1", "--json", numbers]
    result = run(path, *words, "--size", "64x144")
    assert result.exit_code == 0, result.output
    assert "in a picture, which is seen by 3 windows (data.tiles)\n" in result.stdout
    assert any(line.startswith("resize, paste, stitch") for line in result.stdout.splitlines())
    assert json.loads(numbers.read_text())["models"][str(path)]["windows"] == 3
    small = run(whole, *words, "--size", "48x64")
    assert "in a picture, which is seen by 1 window (data.tiles)\n" in small.stdout
    trained = run("htc_tiny", *NARROW, *words, "--size", "64x96", "--train")
    assert trained.exit_code == 0, trained.output
    assert "in a picture, which is seen by 1 window (data.tiles, drawn at random)\n" in trained.stdout


def test_several_views(tmp_path: Path) -> None:
    result = run("htc_tiny", *NARROW, "data.tta={short_sides: [64]}", "--size", "64x64", "--rounds", "1")
    assert result.exit_code == 0, result.output
    assert any(line.startswith("masks") for line in result.stdout.splitlines())


class SmallMaskRCNN(torch.nn.Module):
    """Speaks as torchvision's Mask R-CNN does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 1)

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None) -> object:
        seen = self.conv(torch.stack(images))
        if not self.training:
            return [{"boxes": seen.new_zeros(2, 4)} for _ in images]
        assert targets is not None
        assert {target["labels"].min().item() > 0 for target in targets} == {True}, "0 is the background there"
        return {"loss": seen.mean(), "loss_mask": seen.var()}


def test_a_yardstick_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsctool.engine.benchmark import plan

    monkeypatch.setattr(plan, "mask_rcnn", lambda size, device: SmallMaskRCNN())
    result = run("htc_tiny", "--size", "64x64", "--rounds", "1", "--yardstick", "--train")
    assert result.exit_code == 0, result.output
    assert "torchvision Mask R-CNN R-50: " in result.stdout


def test_a_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsctool.engine.benchmark import plan

    def of_few_detections(size: Size, device: torch.device) -> torch.nn.Module:
        model = mask_rcnn(size, device)
        model.roi_heads.detections_per_img = 5
        return model

    monkeypatch.setattr(plan, "mask_rcnn", of_few_detections)
    result = run("htc_tiny", "--size", "64x64", "--rounds", "1", "--yardstick")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("torchvision Mask R-CNN R-50  ")]
    assert len(rows) == 1
    assert "1.00 (1.00 to 1.00)" in rows[0]


def test_memory_is_that_of_a_process_of_its_own() -> None:
    """Whatever this one holds."""
    from dsctool.engine.benchmark.subjects import Named

    held = torch.ones(300 << 20)
    own = memory(Named("htc_tiny", ()), Plan(size=(64, 64)))
    assert 1 << 27 < own < held.nbytes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lr=1"], "name a configuration or a checkpoint"),
        (["htc_tiny", "htc_tiny"], "htc_tiny: named twice"),
        (["htc_tiny", "--train", "--images", "."], "--images and --plot are for inference"),
        (["htc_tiny", "--plot", "x.png"], "with --data"),
        (["htc_tiny", "--data", "nowhere"], "configurations with random weights"),
        (["htc_smol"], "htc_smol"),
        (["htc_tiny", "--images", "nowhere"], "nowhere"),
    ],
)
def test_what_does_not_go_together(words: list[str], message: str, tmp_path: Path) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize("size", ["480", "480x", "0x64", "480X640", "axb"])
def test_sizes_that_are_none(size: str) -> None:
    result = run("htc_tiny", "--size", size)
    assert result.exit_code == 2
    assert "480x640" in result.output


def test_short_names() -> None:
    assert _short(["runs/a/best.pt", "runs/b/best.pt"]) == {"runs/a/best.pt": "a", "runs/b/best.pt": "b"}
    assert _short(["a.pt", "b.pt"]) == {"a.pt": "a.pt", "b.pt": "b.pt"}
    assert _short(["runs/a/best.pt"]) == {"runs/a/best.pt": "best.pt"}
    assert _short(["runs/a.pt", "a.pt"]) == {"runs/a.pt": "runs", "a.pt": "a.pt"}


def test_the_best_at_every_time() -> None:
    assert _frontier([(3, 40), (1, 30), (2, 25), (4, 41)]) == [(1, 30), (3, 40), (4, 41)]


def test_boxes_alone_have_one_plot(tmp_path: Path) -> None:
    save_tradeoff(tmp_path / "one.png", [Point("a", 1.0, {"bbox": 0.3}), Point("b", 2.0, {"bbox": 0.4})])
    save_tradeoff(tmp_path / "two.png", [Point("a", 1.0, {"bbox": 0.3, "segm": 0.2})])
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.size[0] < two.size[0]
