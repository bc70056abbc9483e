"""Exported programs beside the detectors that they are made of, and files that are none."""

from __future__ import annotations

import errno
import gc
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx_ir
import pytest
import torch
from torch import Tensor

from dsctool.config.loading import load_config
from dsctool.data.records import Category
from dsctool.engine.export_check import partners_of
from dsctool.errors import CheckpointError, ConfigError, DamagedError, DataError, DsctoolError
from dsctool.interop.checkpoint import load_checkpoint
from dsctool.interop.export_file import INPUTS, KEY, ExportInput
from dsctool.interop.exported import ExportedDetector, Outputs, load_exported
from dsctool.interop.exporting import described, quiet, traced, write_onnx, write_pt2
from dsctool.interop.onnx_precision import to_float16, write_int8
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.structures import Detections
from dsctool.terms import Size
from tests.models.tiny import SMALL, tiny_detector

ARBITRARY = "postprocess.score_threshold=0.05"  # weights are random: everything scores about a quarter


def detector_of(name: str, *overrides: str) -> Detector:
    detector = tiny_detector(name, [ARBITRARY, *overrides]).eval()
    detector.categories = [Category(10 * label, f"class {label}") for label in range(3)]
    return detector


def exported_to(
    folder: Path,
    detector: Detector,
    form: ExportInput = ExportInput(),  # noqa: B008
    *,
    onnx: bool = True,
    pt2: bool = True,
) -> list[Path]:
    """Files of both kinds; each takes half a minute on a busy core."""
    program, about = traced(detector, form), described(detector, form)
    paths = []
    if pt2:  # the first: to convert it changes a program
        paths.append(folder / "model.pt2")
        with paths[-1].open("wb") as file:
            write_pt2(program, about, file)
    if onnx:
        paths.append(folder / "model.onnx")
        write_onnx(program, about, paths[-1])
    return paths


def images_of(detector: Detector, count: int, height: int, width: int, *, seed: int = 0) -> tuple[Tensor, list[Size]]:
    """Pixels of 0 to 255 as the network sees them, each image a little smaller than the one before."""
    noise = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=noise)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (detector.config.data.mean, detector.config.data.std))
    images = (pixels - mean) / std
    sizes = [(height - 5 * number, width - 3 * number) for number in range(count)]
    for image, (rows, columns) in zip(images, sizes, strict=True):
        image[:, rows:] = 0
        image[:, :, columns:] = 0
    return images, sizes


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        assert own.size == other.size
        assert own.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(own.boxes, other.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(own.scores, other.scores, atol=1e-5, rtol=0)
        assert (own.mask_probs is None) == (other.mask_probs is None)
        if own.mask_probs is not None:
            torch.testing.assert_close(own.mask_probs, other.mask_probs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["detectors_tiny", "dsc_tiny", "fast_dsc_tiny"])
def test_programs_find_what_detectors_find_on_any_canvas(tmp_path: Path, name: str) -> None:
    detector = detector_of(name)
    for path in exported_to(tmp_path, detector, onnx=name != "fast_dsc_tiny"):
        model = load_exported(path)
        assert model.categories == detector.categories
        assert b"detector.backbone" in path.read_bytes()  # names of modules, for viewers
        assert b"exportable.py" not in path.read_bytes()  # but nothing of the machine that it was made on
        for height, width in ((96, 128), (160, 96)):
            images, sizes = images_of(detector, 2, height, width)
            originals = [(2 * rows, 2 * columns + 1) for rows, columns in sizes]
            expected = detector.detect(images, sizes, originals)
            assert min(len(each) for each in expected) > 3
            assert_same(model.detect(images, sizes, originals), expected)
        if path.suffix == ".onnx":
            assert_fewer_bits_find_nearly_the_same(path, detector)


def assert_fewer_bits_find_nearly_the_same(path: Path, detector: Detector) -> None:
    images, sizes = images_of(detector, 1, 96, 128)
    (expected,) = detector.detect(images, sizes)
    half, int8 = path.with_name("half.onnx"), path.with_name("int8.onnx")
    program = onnx_ir.load(path)
    to_float16(program)
    onnx_ir.save(program, half)
    assert half.stat().st_size < 0.85 * path.stat().st_size
    (found,) = load_exported(half).detect(images, sizes)
    rows, partners = partners_of(expected, found)
    assert len(rows) >= 0.8 * len(expected)  # weights are random: scores lie close together
    assert (expected[rows].boxes - found[partners].boxes).abs().max() < 0.5

    seen: list[dict[str, np.ndarray[Any, Any]]] = []

    def look(inputs: Sequence[Tensor], outputs: Outputs) -> None:
        seen.append({name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)})

    load_exported(path).watched(look).detect(images, sizes)
    with quiet():
        write_int8(path, int8, iter(seen))
    assert int8.stat().st_size < 0.8 * path.stat().st_size
    model = load_exported(int8)
    assert model.categories == detector.categories
    (found,) = model.detect(images, sizes)
    assert len(found) > 3
    assert abs(float(found.scores[0] - expected.scores[0])) < 0.05


def test_a_canvas_and_a_batch_of_normalised_images_with_nothing_on_one(tmp_path: Path) -> None:
    form = ExportInput(pixels="float32", canvas=(96, 128), batch=2)
    detector = detector_of("cascade_mask_rcnn_tiny")
    images, sizes = images_of(detector, 3, 96, 128)
    # Between the best and the second best of all: one thing on one image, nothing on the others.
    second, best = sorted(float(score) for found in detector.detect(images, sizes) for score in found.scores)[-2:]
    detector.postprocess = replace(detector.postprocess, score_threshold=(second + best) / 2)
    expected = detector.detect(images, sizes)
    assert sorted(len(found) for found in expected) == [0, 0, 1]
    for path in exported_to(tmp_path, detector, form):
        model = load_exported(path, overrides=[f"postprocess.score_threshold={detector.postprocess.score_threshold}"])
        assert_same(model.detect(images, sizes), expected)
    padded = torch.zeros(1, 3, 96, 128)
    padded[..., :64, :96] = images[:1, :, :64, :96]
    found = model.detect(images[:1, :, :64, :96])
    assert_same(found, detector.detect(padded, [(64, 96)]))
    with pytest.raises(DataError, match=r"takes pictures of up to 128 x 96 pixels, and this one.* has 128 x 128"):
        model.detect(torch.zeros(1, 3, 128, 128))


def test_boxes_alone(files: tuple[Path, Path]) -> None:
    detector = boxes_alone("0.2")
    for path in files:
        model = load_exported(path)
        assert not model.has_masks
        images, sizes = images_of(detector, 1, 96, 128)
        assert_same(model.detect(images, sizes), detector.detect(images, sizes))
        # Small images get a larger canvas, on which the detector finds the same.
        images, sizes = images_of(detector, 1, 64, 64)
        assert_same(model.detect(images, sizes), detector.detect(model.on_canvas(images), sizes))


def boxes_alone(threshold: str) -> Detector:
    words = [word for word in SMALL if "mask_head" not in word]
    torch.manual_seed(0)
    changes = [*words, "model.cascade.mask_head=null", f"postprocess.score_threshold={threshold}"]
    detector = build_detector(load_config("cascade_mask_rcnn_tiny", changes)).eval()
    detector.categories = [Category(label, f"class {label}") for label in (1, 2, 3)]
    return detector


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, content: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_is_an_error_and_not_the_end_of_the_process() -> None:
    program = torch.export.export(torch.nn.Linear(100, 100), (torch.zeros(1, 100),))
    about = described(detector_of("htc_tiny"), ExportInput())
    with pytest.raises(OSError, match="No space left"):
        write_pt2(program, about, Full())
    gc.collect()  # what PyTorch's writer was left with


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("postprocess.nms=soft",), "postprocess.nms=soft: suppression by decaying scores cannot be exported"),
        (("postprocess.nms=mask",), "postprocess.nms=mask: suppression of masks cannot be exported"),
        (("postprocess.keep_candidates=10",), "postprocess.keep_candidates: candidates cannot be exported"),
        (("model.geometry=mmdet1",), "model.geometry=mmdet1: mmdet 1.x's conventions cannot be exported"),
    ],
)
def test_what_stays_in_python_is_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        traced(detector_of("htc_tiny", *words), ExportInput())


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pt2, onnx = exported_to(tmp_path_factory.mktemp("exported"), boxes_alone("0.2"))
    return onnx, pt2


@pytest.fixture
def changed(files: tuple[Path, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of one of the files, changed."""

    def change(suffix: str, *, about: Callable[[dict[str, object]], None] | None = None) -> Path:
        import onnx

        copy = tmp_path / f"copy{suffix}"
        if suffix == ".pt2":
            with zipfile.ZipFile(files[1]) as source, zipfile.ZipFile(copy, "w") as target:
                for name in source.namelist():
                    content = source.read(name)
                    if name.endswith("dsctool.json") and about is not None:
                        description = json.loads(content)
                        about(description)
                        content = json.dumps(description).encode()
                    target.writestr(name, content)
            return copy
        model = onnx.load(files[0])
        (entry,) = (each for each in model.metadata_props if each.key == KEY)
        if about is None:
            model.metadata_props.remove(entry)
        else:
            description = json.loads(entry.value)
            about(description)
            entry.value = json.dumps(description)
        onnx.save(model, copy)
        return copy

    return change


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_files_of_newer_releases_and_damaged_descriptions(changed: Callable[..., Path], suffix: str) -> None:
    with pytest.raises(CheckpointError, match=r"newer dsctool \(version 2 .*Update dsctool"):
        load_exported(changed(suffix, about=lambda it: it.update(version=2)))
    with pytest.raises(DamagedError, match="what dsctool export wrote about it is damaged"):
        load_exported(changed(suffix, about=lambda it: it.pop("input")))
    with pytest.raises(CheckpointError, match="its configuration is not valid here"):
        load_exported(changed(suffix, about=lambda it: it["config"]["model"].update(unheard_of=1)))


def test_files_of_other_programs(changed: Callable[..., Path], files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was not written by dsctool export"):
        load_exported(changed(".onnx"))
    other = tmp_path / "other.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), other)
    with pytest.raises(CheckpointError, match="was not written by dsctool export"):
        load_exported(other)


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_files(files: tuple[Path, Path], tmp_path: Path, number: int) -> None:
    whole = files[number].read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"not a model")):
        path = tmp_path / f"{name}{files[number].suffix}"
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=f"{name}.*cannot"):
            load_exported(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_exported(tmp_path / f"none{files[number].suffix}")


class Trap:
    """A pickle that would leave a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data/constants/custom_obj_0", "data/sample_inputs/model.pt"])
def test_code_in_a_file_is_never_run(files: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    path, sprung = tmp_path / "trap.pt2", tmp_path / "sprung"
    with zipfile.ZipFile(files[1]) as source, zipfile.ZipFile(path, "w") as target:
        root = source.namelist()[0].split("/")[0]
        for each in source.namelist():
            if each != f"{root}/{name}":
                target.writestr(each, source.read(each))
        target.writestr(f"{root}/{name}", pickle.dumps(Trap(sprung)))
    with pytest.raises(CheckpointError, match="may be code"):
        load_exported(path)
    assert not sprung.exists()


@pytest.mark.parametrize("number", [0, 1])
def test_what_may_be_changed_and_what_is_part_of_the_program(
    files: tuple[Path, Path], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files[number]
    detector = boxes_alone("0.2")
    images, sizes = images_of(detector, 1, 96, 128)
    (found,) = detector.detect(images, sizes)
    assert len(found) > 3
    middle = float(found.scores[1:3].mean())  # between two, where rounding does not matter
    model = load_exported(path, overrides=[f"postprocess.score_threshold={middle}", "data.test_resize.long_side=99"])
    (fewer,) = model.detect(images, sizes)
    torch.testing.assert_close(fewer.scores, found.scores[found.scores > middle], atol=1e-5, rtol=0)
    assert model.config.data.test_resize.long_side == 99
    monkeypatch.setattr("torch.export.load", None)  # takes seconds: what cannot be is said before
    for word, message in (
        ("postprocess.nms_iou=0.9", "postprocess.nms_iou: is part of the program"),
        ("data.mean=[1,2,3]", "data.mean: is part of the program"),
        ("data.tta={}", "data.tta"),
        ("postprocess.score_threshold=0.1", "leaves out what scores no more than 0.2"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_exported(path, overrides=[word])


def test_what_a_program_does_not_give(files: tuple[Path, Path]) -> None:
    model: ExportedDetector = load_exported(files[0])
    for asked, what in (("stage_masks", "masks of its stages"), ("semantic", "a semantic branch")):
        with pytest.raises(DsctoolError, match=f"is exported, without .*{what}"):
            model.detect(torch.zeros(1, 3, 64, 64), **{asked: True})
    with pytest.raises(CheckpointError, match="is an exported file, which dsctool predict, eval and benchmark run"):
        load_checkpoint(files[0])
