"""``dsctool export``, and exported files in the other commands."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.data.synthetic.dataset import synthesize
from dsctool.data.synthetic.scenes import CLASSES
from dsctool.errors import ConfigError
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.interop.export_file import KEY, ExportedFile
from dsctool.interop.exported import load_exported
from dsctool.interop.onnx_precision import to_float16
from dsctool.models.build import build_detector
from tests.models.tiny import NARROW


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@dataclass(frozen=True)
class Files:
    """A checkpoint, what it was exported to and how, and a data set."""

    checkpoint: Path
    exported: Path
    script: Path
    said: str
    data: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("export")
    few = ["model.rpn.test_max_proposals=40", "postprocess.max_per_image=20", f"model.num_classes={len(CLASSES)}"]
    sizes = ["data.test_resize.short_sides=[96]", "data.test_resize.long_side=128"]
    config = load_config("htc_tiny", [*NARROW, *few, *sizes, "postprocess.score_threshold=0.12", "data.workers=0"])
    torch.manual_seed(0)
    categories = [Category(number, each) for number, each in enumerate(CLASSES, start=1)]
    save_checkpoint(folder / "best.pt", Checkpoint(config, categories, build_detector(config).state_dict()))
    synthesize(folder / "scenes", images=1, val_images=3, size=(120, 160), seed=0)
    result = run("export", folder / "best.pt", "--data", folder / "scenes", "--output", folder / "model.onnx")
    assert result.exit_code == 0, result.output
    return Files(
        folder / "best.pt", folder / "model.onnx", folder / "model_example.py", result.stdout, folder / "scenes"
    )


def numbers(path: Path) -> Any:
    return json.loads(path.read_text())


def test_what_is_said(files: Files) -> None:
    assert "compared on 3 pictures with " in files.said
    assert " 0 without a partner" in files.said
    assert files.exported.exists()
    assert not [each for each in files.exported.parent.iterdir() if each.name.startswith(".")]


def test_eval_and_predict_give_what_the_checkpoint_gives(files: Files, tmp_path: Path) -> None:
    for name, model in (("own", files.checkpoint), ("exported", files.exported)):
        result = run("eval", model, "--data", files.data, "--json", tmp_path / f"{name}.json")
        assert result.exit_code == 0, result.output
        result = run("predict", model, files.data / "val", "--output", tmp_path / name, "--no-overlays")
        assert result.exit_code == 0, result.output
    own, exported = (numbers(tmp_path / f"{name}.json") for name in ("own", "exported"))
    for kind in ("bbox", "segm"):
        assert own[kind]["AP"] == pytest.approx(exported[kind]["AP"], abs=1e-6)
    own, exported = (numbers(tmp_path / name / "predictions.json") for name in ("own", "exported"))
    assert len(own) == len(exported) > 10
    for one, other in zip(own, exported, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.02)


def test_the_script_finds_the_same_without_this_package(files: Files, tmp_path: Path) -> None:
    assert "model.onnx" in files.script.read_text()
    assert "dsctool" not in files.script.read_text().replace('custom_metadata_map["dsctool"]', "")
    assert_script_finds_the_same(files, files.exported, tmp_path)


def assert_script_finds_the_same(files: Files, model: Path, folder: Path) -> None:
    picture = next(iter(sorted((files.data / "val").iterdir())))
    words = [files.script, model, picture, "--score", "0.13", "--instances", folder / "instances.png"]
    ran = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=True)
    things = [json.loads(line) for line in ran.stdout.splitlines()]
    result = run("predict", model, picture, "--output", folder / "out", "--no-overlays")
    assert result.exit_code == 0, result.output
    results = [each for each in numbers(folder / "out" / "predictions.json") if each["score"] >= 0.13]
    assert len(things) == len(results) > 3
    names = dict(enumerate(CLASSES, start=1))
    for thing, expected in zip(things, results, strict=True):
        assert thing["name"] == names[expected["category_id"]]
        assert thing["score"] == pytest.approx(expected["score"], abs=0.005)
        x, y, width, height = expected["bbox"]
        assert thing["box"] == pytest.approx([x, y, x + width, y + height], abs=1)
        assert thing["area"] == pytest.approx(area(expected), rel=0.02, abs=8)
    where = np.asarray(Image.open(folder / "instances.png"))
    assert where.shape == Image.open(picture).size[::-1]
    assert where.max() <= len(things)


def area(result: Any) -> int:
    from pycocotools import mask

    return int(mask.area(result["segmentation"]))


def test_huddle_report_runs_it(files: Files, tmp_path: Path) -> None:
    words = ["--predictions", files.exported, "--data", files.data, "--output", tmp_path, "--device", "cpu"]
    result = run("huddle-report", *words)
    assert result.exit_code == 0, result.output
    assert len(numbers(tmp_path / "predictions.json")) > 10


def test_a_video_and_tiles(files: Files, tmp_path: Path) -> None:
    assert_video_and_tiles(files.exported, files, tmp_path)


def assert_video_and_tiles(model: Path, files: Files, folder: Path) -> None:
    """Of any kind of file, the frames of a clip, and windows two at once."""
    pytest.importorskip("av")
    from tests.cli.test_predict_clip import clip_of

    words = ["--no-overlays", "--device", "cpu"]
    result = run("predict", model, clip_of(folder / "clip.mp4", 2), *words, "--output", folder / "clip")
    assert result.exit_code == 0, result.output
    assert len(numbers(folder / "clip" / "images.json")["images"]) == 2
    tiles = ["--tiles", "96", "--batch", "2", "--page", "--output", folder / "tiles"]
    result = run("predict", model, files.data / "val", *words, *tiles)
    assert result.exit_code == 0, result.output
    assert len(numbers(folder / "tiles" / "predictions.json")) > 10
    assert (folder / "tiles" / "explorer.html").exists()


def test_benchmark_measures_it_as_one_stage(files: Files) -> None:
    result = run("benchmark", files.exported, "--images", files.data / "val", "--rounds", "1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "other" in result.stdout
    assert "backbone" not in result.stdout
    result = run("benchmark", files.exported, "--train", "--data", files.data, "--device", "cpu")
    assert (result.exit_code, "is exported, and cannot be trained" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stages",), "without the masks of its stages"),
        (("--panoptic",), "--panoptic: .* is exported"),
        (("--keep-candidates",), "without boxes before NMS"),
        (("--precision", "bfloat16"), "computes as it does: give no --precision"),
        (("--score-threshold", "auto"), "is an exported file"),
        (("--tta",), "data.tta"),
        (("postprocess.nms=soft",), "postprocess.nms: is part of the program .* to dsctool export instead"),
    ],
)
def test_what_an_exported_file_cannot_do_is_said(
    files: Files, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = run("predict", files.exported, files.data / "val", *words, "--output", tmp_path, "--device", "cpu")
    assert result.exit_code == 1
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "predictions.json").exists()


def test_pictures_resized_in_the_file_beside_a_script_that_was_changed(files: Files, tmp_path: Path) -> None:
    script = tmp_path / "model_example.py"
    script.write_text("mine")
    output = tmp_path / "model.onnx"
    words = ["--size", "96x128", "--pictures", "2", "--input", "picture", "--precision", "float16", "--output", output]
    result = run("export", files.checkpoint, *words)
    assert result.exit_code == 0, result.output
    assert "Group norms see the whole canvas" in result.stdout
    assert "compared on 2 pictures" in result.stdout  # of the drawn ones, every other one is upright
    assert "is there already, and stays as it is" in result.stdout
    assert script.read_text() == "mine"
    model = load_exported(output)
    assert model.precision == "float16"
    assert [model.fits(size) for size in ((480, 640), (640, 480), (480, 480))] == [True, False, True]
    session = onnxruntime.InferenceSession(str(output))
    assert [(each.name, each.shape[:2]) for each in session.get_inputs()] == [("images", [1, 3])]
    assert_script_finds_the_same(files, output, tmp_path)
    assert_video_and_tiles(output, files, tmp_path)
    with pytest.raises(ConfigError, match=r"data\.test_resize\.short_sides: is part of the program"):
        load_exported(output, overrides=["data.test_resize.short_sides=[64]"])


def without_conversion(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    """What is exported from here on is the file that is there, described anew, in the precision that is asked for."""

    def described_anew(program: object, about: ExportedFile, path: Path, *, opset: int) -> None:
        model = onnx_ir.load(files.exported)
        if about.precision == "float16":
            to_float16(model)
        model.metadata_props[KEY] = about.to_json()
        onnx_ir.save(model, path)

    monkeypatch.setattr("dsctool.interop.exporting.traced", lambda detector, form: None)
    monkeypatch.setattr("dsctool.interop.exporting.write_onnx", described_anew)


def test_int8_says_what_it_costs(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "model.onnx"
    words = ["export", files.checkpoint, "--precision", "int8", "--data", files.data, "--output", output]

    without_conversion(monkeypatch, files)
    result = run(*words)
    assert result.exit_code == 0, result.output
    costs = r"AP on the val split, of the checkpoint and in int8: box 0\.\d{4} -> 0\.\d{4}, mask 0\.\d{4} -> 0\.\d{4}"
    assert re.search(costs, result.stdout), result.stdout
    assert load_exported(output).precision == "int8"
    assert output.stat().st_size < 0.5 * files.exported.stat().st_size
    result = run("predict", output, files.data / "val", "--output", tmp_path / "out", "--no-overlays")
    assert result.exit_code == 0, result.output
    assert len(numbers(tmp_path / "out" / "predictions.json")) > 10
    assert_video_and_tiles(output, files, tmp_path)

    before = output.read_bytes()
    monkeypatch.setattr("dsctool.engine.export_check.ap_cost", lambda *_: {"bbox": (0.4, 0.395), "segm": (0.4, 0.385)})
    result = run(*words)
    assert result.exit_code == 1
    assert "more than 0.01 of mask AP is lost (--ap-loss)" in result.stderr
    assert output.read_bytes() == before
    assert run(*words, "--ap-loss", "0.02").exit_code == 0


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_full_disk_is_said_with_the_file(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    without_conversion(monkeypatch, files)
    monkeypatch.setattr(f"dsctool.interop.exporting.write_{name[6:]}", full)
    output = tmp_path / name
    output.write_text("an older file")
    result = run("export", files.checkpoint, "--output", output)
    assert result.exit_code == 1
    assert f"{name}: the disk is full" in result.stderr
    assert output.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_that_differs_is_not_left(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsctool.engine import export_check

    without_conversion(monkeypatch, files)
    strict = export_check.Limits(box=-1.0)
    monkeypatch.setattr(export_check.Limits, "of", lambda precision, pixels: strict)
    output = tmp_path / "model.onnx"
    output.write_text("an older file")
    words = ["--precision", "float16", "--pictures", "1", "--output", output]
    result = run("export", files.checkpoint, *words)
    assert result.exit_code == 1
    box = re.search(r"at most (\S+) px", result.stdout)
    assert box is not None
    assert 0 < float(box[1]) < 0.5
    assert "model.onnx: not written, since what was made differs from" in result.stderr
    assert "boxes: " in result.stderr
    assert output.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "model.bin"), "ends neither in .onnx nor in .pt2"),
        (("--output", "model.onnx", "--format", "pt2"), "is the name of another kind of file"),
        (("--output", "model.onnx", "--size", "100x100"), "not HEIGHTxWIDTH in multiples of 32 from 96 on"),
        (("--output", "model.pt2", "--precision", "float16"), "pt2 files compute in float32"),
        (("--output", "model.onnx", "--precision", "int8"), "says what it costs on val: give --data"),
        (("--output", "model.onnx", "--input", "picture"), "picture is of one, on a canvas: give --size, no --batch"),
        (("--output", "model.onnx", "--size", "64x64"), "not HEIGHTxWIDTH in multiples of 32 from 96 on"),
    ],
)
def test_wrong_usage(files: Files, words: tuple[str, ...], message: str) -> None:
    result = run("export", files.checkpoint, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_exporting_what_is_exported(files: Files, tmp_path: Path) -> None:
    result = run("export", files.exported, "--output", tmp_path / "again.onnx")
    assert result.exit_code == 1
    assert "is an exported file" in result.stderr
