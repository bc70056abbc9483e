"""``Detector.predict_images`` and ``predict``, as one would call them from a notebook."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from typer.testing import CliRunner

import dsctool
from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.images import read_image
from dsctool.data.records import Category
from dsctool.errors import DataError
from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.structures import Instances
from tests.models.tiny import SMALL

CATEGORIES = [Category(7, "cup"), Category(90, "plate"), Category(4, "fork")]
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
ARBITRARY = "postprocess.score_threshold=0.05"  # weights are random: everything scores about a quarter


@dataclass(frozen=True)
class Files:
    """A checkpoint, an image, and what ``dsctool predict`` finds in it."""

    checkpoint: Path
    image: Path
    results: list[dict[str, Any]]


def checkpoint_of(folder: Path, *overrides: str, name: str = "htc_tiny") -> Path:
    config = load_config(name, [*SMALL, "data.test_resize.short_sides=[64]", ARBITRARY, *overrides])
    torch.manual_seed(0)
    weights = build_detector(config).state_dict()
    save_checkpoint(folder / "best.pt", Checkpoint(config=config, categories=CATEGORIES, model=weights))
    return folder / "best.pt"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("api")
    checkpoint, image = checkpoint_of(folder), folder / "image.png"
    Image.fromarray(PIXELS).save(image)
    words = ["predict", str(checkpoint), str(image), "--output", str(folder / "out"), "--no-overlays"]
    ran = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    results = json.loads((folder / "out" / "predictions.json").read_text())
    assert len(results) > 3
    return Files(checkpoint, image, results)


@pytest.fixture(scope="module")
def model(files: Files) -> Detector:
    return dsctool.load_model(files.checkpoint)


def _exif_turned(path: Path) -> Image.Image:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(PIXELS)).save(path.with_name("turned.png"), exif=exif)
    return Image.open(path.with_name("turned.png"))


KINDS: dict[str, Callable[[Path], Any]] = {
    "a path": lambda path: path,
    "a path as text": str,
    "a Pillow image": Image.open,
    "a Pillow image in memory": lambda path: Image.fromarray(PIXELS),
    "a Pillow image with alpha": lambda path: Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])),
    "a Pillow image that EXIF turns": _exif_turned,
    "an array": lambda path: PIXELS,
    "an array in another order": lambda path: PIXELS[..., ::-1].copy()[..., ::-1],
    "an array that can't be written to": lambda path: np.asarray(Image.open(path)),
    "an array with alpha": lambda path: np.dstack([PIXELS, PIXELS[..., 0]]),
    "a tensor": read_image,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_gives_what_the_command_gives(kind: str, files: Files, model: Detector) -> None:
    found = model.predict_images(KINDS[kind](files.image), score=0)
    assert found.to_coco(image_id=1) == files.results
    assert found.size == (60, 90)
    assert found.image is not None
    assert np.array_equal(found.image.permute(1, 2, 0).numpy(), PIXELS)
    assert set(found.counts()) <= {"cup", "plate", "fork"}


def test_grey_and_palette_are_read_as_files_are(tmp_path: Path, model: Detector) -> None:
    grey = PIXELS[..., 0]
    palette = Image.fromarray(PIXELS).quantize(16)
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    for name, picture, images in (
        ("grey", Image.fromarray(grey), [grey, Image.fromarray(grey), np.dstack([grey] * 3), deep]),
        ("palette", palette, [palette, palette.convert("RGB")]),
    ):
        picture.save(tmp_path / f"{name}.png")
        expected = model.predict_images(tmp_path / f"{name}.png", score=0).to_coco(1)
        assert [found.to_coco(1) for found in model.predict_images(images, score=0)] == [expected] * len(images)


def test_a_list_gives_a_list_whatever_the_sizes(files: Files, model: Detector) -> None:
    wide = np.zeros((40, 200, 3), np.uint8)
    found = model.predict_images([wide, files.image, Image.fromarray(PIXELS[:50, :30])], score=0)
    assert [each.size for each in found] == [(40, 200), (60, 90), (50, 30)]
    assert found[1].to_coco(1) == files.results
    assert found[0].to_coco(1) == model.predict_images(wide, score=0).to_coco(1)
    assert [each.to_coco(1) for each in model.predict_images((files.image,), score=0)] == [files.results]
    assert model.predict_images([]) == []


def test_files_one_by_one_give_the_same(files: Files, model: Detector) -> None:
    ((file, found),) = dsctool.predict_images(model, [files.image])
    assert file.path == files.image
    assert found.to_coco(image_id=file.id) == files.results
    assert np.array_equal(np.asarray(found.draw()), np.asarray(model.predict_images(files.image, score=0).draw()))


def test_scores_from_the_one_asked_for(files: Files, model: Detector) -> None:
    scores = [result["score"] for result in files.results]
    middle = sorted(scores)[len(scores) // 2]
    found = model.predict_images(files.image, score=middle)
    assert found.to_coco(1) == [result for result in files.results if result["score"] >= middle]
    assert 0 < len(found) < len(scores)
    ((_, alone),) = dsctool.predict_images(model, files.image, score=middle)
    assert alone.to_coco(1) == found.to_coco(1)
    usual = model.predict_images(files.image)
    assert [result["score"] for result in usual.to_coco(1)] == [score for score in scores if score >= 0.3]
    nothing = model.predict_images(files.image, score=1)
    assert (len(nothing), nothing.counts(), repr(nothing)) == (0, {}, "Instances(0 in 60 x 90)")


def test_everything_a_notebook_asks_for(files: Files, model: Detector) -> None:
    found = model.predict_images(files.image, score=0)
    assert found.areas.tolist() == found.masks.flatten(1).sum(dim=1).tolist()  # type: ignore[union-attr]
    assert found.numpy().masks.shape == (len(found), 60, 90)  # type: ignore[union-attr]
    assert found.draw().size == (90, 60)
    assert found._repr_png_() is not None
    assert repr(found).startswith(f"Instances({len(found)} in 60 x 90: ")
    assert sum(found.counts().values()) == len(found)


@pytest.mark.parametrize("call", ["predict_images", "predict", "detect", "generator"])
def test_results_are_the_users_own(files: Files, model: Detector, call: str) -> None:
    """Ordinary tensors, to change in place, also with gradients recorded; no memory is shared with what was given."""
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(PIXELS).permute(2, 0, 1).contiguous()
    if call == "predict_images":
        found = model.predict_images(pixels, score=0)
        found.image.zero_()  # type: ignore[union-attr]
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), PIXELS)
    elif call == "generator":
        ((_, found),) = dsctool.predict_images(model, files.image)
    else:
        (found,) = getattr(model, call)(batch)
    assert not found.boxes.requires_grad
    with torch.enable_grad():
        found.boxes[:, 0] += 5
        (found.scores * torch.ones(1, requires_grad=True)).sum().backward()
    if call != "detect":
        found.masks[:] = False  # type: ignore[index]


def test_on_every_device_results_are_on_the_cpu(files: Files, device: torch.device) -> None:
    model = dsctool.load_model(files.checkpoint, device=device)
    for found in (model.predict_images(files.image, score=0), next(dsctool.predict_images(model, files.image))[1]):
        assert len(found) > 0
        assert {part.device.type for part in (found.boxes, found.masks, found.scores)} == {"cpu"}  # type: ignore[union-attr]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays_and_does_not_matter(files: Files, model: Detector, training: bool) -> None:
    model.train(training)
    assert model.predict_images(files.image, score=0).to_coco(1) == files.results
    assert model.training == training
    model.eval()


def test_a_detector_without_masks(tmp_path: Path, files: Files) -> None:
    path = checkpoint_of(tmp_path, "model.cascade.mask_head=null", name="cascade_mask_rcnn_tiny")
    found = dsctool.load_model(path).predict_images(files.image, score=0)
    assert len(found) > 0
    assert found.masks is None
    assert found.size == (60, 90)
    assert found.draw().size == (90, 60)
    assert "segmentation" not in found.to_coco(1)[0]


# --- what predict_images refuses --------------------------------------------------------------------

ARRAY = r"an array must be \(h, w, 3\) uint8 in RGB order, 0 to 255, or \(h, w\) for grey, not "
TENSOR = r"a tensor must be \(3, h, w\) uint8 in RGB order, 0 to 255, not "


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (PIXELS / 255, ARRAY + r"\(60, 90, 3\) float64"),
        (PIXELS.astype(np.float32), ARRAY + r"\(60, 90, 3\) float32"),
        (PIXELS.astype(np.int64), ARRAY + r"\(60, 90, 3\) int64"),
        (PIXELS.transpose(2, 0, 1), ARRAY + r"\(3, 60, 90\) uint8"),
        (PIXELS[..., :2], ARRAY + r"\(60, 90, 2\) uint8"),
        (PIXELS[None], ARRAY + r"\(1, 60, 90, 3\) uint8; give the pictures of a batch as a list"),
        (PIXELS[:0], ARRAY + r"\(0, 90, 3\) uint8"),
        (torch.zeros(1, 3, 60, 90), TENSOR + r"\(1, 3, 60, 90\) float32; predict\(\) takes normalised batches"),
        (torch.zeros(60, 90, 3, dtype=torch.uint8), TENSOR + r"\(60, 90, 3\) uint8"),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), "image 1: holds 32-bit floating-point values"),
        (None, r"image 1: give a path, a Pillow image or an \(h, w, 3\) uint8 array in RGB order, not NoneType"),
        (iter([PIXELS]), r"image 1: give a path.*not list_iterator"),
        ("nowhere.jpg", r"nowhere\.jpg: no such file"),
        (Path(__file__), r"test_python_api\.py: cannot be decoded: it is not an image"),
    ],
)
def test_no_picture_is_refused_in_words(image: Any, said: str, model: Detector) -> None:
    with pytest.raises(DataError, match=said):
        model.predict_images(image)


def test_the_one_of_a_list_is_named(files: Files, model: Detector) -> None:
    with pytest.raises(DataError, match=r"^image 3: an array must be"):
        model.predict_images([PIXELS, files.image, PIXELS / 255])


def test_a_cut_file_that_pillow_has_only_begun_to_read(tmp_path: Path, files: Files, model: Detector) -> None:
    (tmp_path / "cut.png").write_bytes(files.image.read_bytes()[:5000])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(DataError, match="image 1: cannot be decoded"):
        model.predict_images(image)


# --- what predict refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8), "its values are uint8"),
        (torch.zeros(1, 3, 64, 96, dtype=torch.int64), "its values are int64"),
        (torch.randn(3, 64, 96), r"its shape is \(3, 64, 96\)"),
        (torch.randn(1, 1, 64, 96), r"its shape is \(1, 1, 64, 96\)"),
        (torch.randn(1, 64, 96, 3), r"its shape is \(1, 64, 96, 3\)"),
        (torch.rand(1, 3, 64, 96), "all its values are from 0 to 1, so the mean colour has not been subtracted"),
        (torch.ones(1, 3, 64, 96), "all its values are from 0 to 1"),
        (PIXELS, "it is a ndarray"),
        (Image.fromarray(PIXELS), "it is a Image"),
        ("photo.jpg", "it is a str"),
    ],
)
def test_no_normalised_batch_is_refused_with_what_to_call(batch: Any, said: str, model: Detector) -> None:
    with pytest.raises(DataError, match=rf"normalised images, and this is none: {said}.*go to predict_images\(\)"):
        model.predict(batch)


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(2, 3, 64, 96),
        torch.randn(1, 3, 64, 96),
        torch.rand(1, 3, 64, 96) * 2.6,  # brighter than the mean everywhere
        torch.full((1, 3, 64, 96), float("nan")),
    ],
)
def test_normalised_batches_pass(batch: torch.Tensor, model: Detector) -> None:
    results = model.predict(batch)
    assert len(results) == len(batch)
    assert all(isinstance(result, Instances) and result.size == (64, 96) for result in results)
