"""From batches to COCO results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.classes import match_categories
from dsctool.data.image_files import ImageFile
from dsctool.data.layout import SplitFiles
from dsctool.data.pictures import picture_batches
from dsctool.data.records import Category
from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.inference import detections, to_results
from dsctool.engine.sets import open_evaluation_set
from dsctool.engine.split_results import evaluate_detector
from dsctool.errors import DataError
from dsctool.ops.masks import paste_masks
from dsctool.structures import Detections, ImageBatch
from dsctool.terms import Size

CATEGORIES = [Category(7, "cup"), Category(90, "plate")]
DATA = DataConfig(test_resize=ResizeConfig(short_sides=(64,), long_side=96), workers=0, semantic="none")


class Fixed(nn.Module):
    """Finds the same two things in the middle of every image; remembers how it was called."""

    def __init__(self, *, masks: bool = True) -> None:
        super().__init__()
        self.masks = masks
        self.calls: list[tuple[torch.Size, list[Size], list[Size], bool]] = []

    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
        semantic: bool = False,
    ) -> list[Detections]:
        assert sizes is not None
        assert original_sizes is not None
        self.calls.append((images.shape, list(sizes), list(original_sizes), self.training))
        return [self._found(size, images.device) for size in original_sizes]

    def _found(self, size: Size, device: torch.device) -> Detections:
        height, width = size
        boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.1, 0.1, 0.3, 0.9]]) * torch.tensor([width, height] * 2)
        return Detections(
            boxes=boxes.to(device),
            scores=torch.tensor([0.9, 0.1], device=device),
            labels=torch.tensor([1, 0], device=device),
            mask_probs=torch.full((2, 28, 28), 0.9, device=device) if self.masks else None,
            size=size,
        )


def batches(*sizes: Size) -> list[Batch]:
    infos = [SampleInfo(image_id=100 + i, original_size=size, file_name=f"{i}.png") for i, size in enumerate(sizes)]
    return [(ImageBatch(torch.zeros(1, 3, 64, 96), [(60, 90)]), [], [info]) for info in infos]


def test_results_are_coco_results(device: torch.device) -> None:
    model = Fixed().train()
    found = list(detections(model, batches((120, 180), (40, 60)), device=device))
    assert [info.image_id for info, _ in found] == [100, 101]
    results = [result for info, image in found for result in to_results(image, info.image_id, CATEGORIES)]
    assert [result["image_id"] for result in results] == [100, 100, 101, 101]
    assert [result["category_id"] for result in results] == [90, 7, 90, 7]
    assert results[0]["bbox"] == [45, 30, 90, 60]
    assert results[0]["score"] == 0.9
    assert json.loads(json.dumps(results)) == results
    assert model.calls[0] == ((1, 3, 64, 96), [(60, 90)], [(120, 180)], False)
    assert model.training


def test_masks_are_the_pasted_ones() -> None:
    found = Fixed()._found((50, 80), torch.device("cpu"))
    results = to_results(found, 1, CATEGORIES)
    assert found.mask_probs is not None
    pasted = paste_masks(found.mask_probs, found.boxes, (50, 80))
    decoded = torch.stack([torch.from_numpy(coco_mask.decode(result["segmentation"])) for result in results])
    assert torch.equal(decoded.bool(), pasted)


def test_boxes_only() -> None:
    results = to_results(Fixed(masks=False)._found((50, 80), torch.device("cpu")), 1, CATEGORIES)
    assert len(results) == 2
    assert not any("segmentation" in result for result in results)


def test_values_lose_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(50, 2, generator=generator) * 1000
    boxes = torch.cat([low, low + torch.rand(50, 2, generator=generator) * 300], dim=1)
    scores = torch.rand(50, generator=generator) ** 8
    found = Detections(boxes, scores, torch.zeros(50, dtype=torch.int64), None, (1300, 1300))
    results = to_results(found, 1, CATEGORIES)
    assert torch.equal(torch.tensor([result["score"] for result in results]), scores)
    assert torch.equal(torch.tensor([result["bbox"] for result in results])[:, 2:], boxes[:, 2:] - boxes[:, :2])
    assert max(len(str(result["score"])) for result in results) < 18


def test_an_image_without_detections() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), None, (10, 10))
    assert to_results(nothing, 1, CATEGORIES) == []


def test_the_mode_is_restored_when_the_caller_stops_early() -> None:
    model = Fixed().train()
    found = detections(model, batches((10, 10), (10, 10)), device=torch.device("cpu"))
    next(found)
    assert not model.training
    found.close()  # type: ignore[attr-defined]
    assert model.training


def test_image_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (120, 80), (1, 2, 3)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    files = [ImageFile(tmp_path / "bad.jpg", 1), ImageFile(tmp_path / "no.png", 2), ImageFile(tmp_path / "good.png", 3)]
    faults: list[str] = []

    read = list(picture_batches(files, DATA, on_fault=lambda error: faults.append(str(error))))

    assert len(faults) == 2
    assert all(file.path.name in text for file, text in zip(files, faults, strict=False))
    images, _, (picture,) = read[0]
    assert len(read) == 1
    assert images.sizes == [picture.input_size] == [(64, 96)]
    assert (picture.image_id, picture.original_size) == (3, (80, 120))
    assert picture.file == files[2]
    assert picture.pixels.shape == (3, 80, 120)
    assert (picture.pixels[:, 5, 5] == torch.tensor([1, 2, 3])).all()
    with pytest.raises(DataError, match=r"bad\.jpg"):
        list(picture_batches(files, DATA))


# --- a split ----------------------------------------------------------------------------------------


def write_split(folder: Path) -> SplitFiles:
    """Two images whose large things are exactly where ``Fixed`` finds them."""
    (folder / "val").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        Image.new("RGB", (120, 80), (90, 90, 90)).save(folder / "val" / name)
    x, y, width, height = box = [30.0, 20.0, 60.0, 40.0]
    content = {
        "images": [{"id": 5 + i, "file_name": f"{i}.png", "width": 120, "height": 80} for i in range(2)],
        "categories": [{"id": each.id, "name": each.name} for each in CATEGORIES],
        "annotations": [
            {"id": i + 1, "image_id": 5 + i, "category_id": 90, "bbox": box, "area": 2400.0, "iscrowd": 0}
            | {"segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]]}
            for i in range(2)
        ],
    }
    annotations = folder / "instances_val.json"
    annotations.write_text(json.dumps(content))
    return SplitFiles(annotations, folder / "val")


def test_evaluation_of_a_split(tmp_path: Path) -> None:
    data = open_evaluation_set(write_split(tmp_path), DATA, masks=True)
    evaluation, comparison = evaluate_detector(Fixed(), data, DATA, CATEGORIES, device=torch.device("cpu"))
    assert len(comparison.results) == 4
    assert evaluation.stats["bbox"]["AP"] == pytest.approx(1)
    assert evaluation.stats["segm"] is not None
    assert evaluation.stats["segm"]["AP50"] == pytest.approx(1)


def test_faults_are_told_before_anything_runs_or_left_out(tmp_path: Path) -> None:
    files = write_split(tmp_path)
    (files.images / "1.png").unlink()
    with pytest.raises(DataError, match=r"image 6: .*1\.png: no such file"):
        open_evaluation_set(files, DATA, masks=True)
    skipping = DATA.model_copy(update={"on_error": "skip"})
    data = open_evaluation_set(files, skipping, masks=True)
    evaluation, _ = evaluate_detector(Fixed(), data, skipping, CATEGORIES, device=torch.device("cpu"))
    assert evaluation.classes[1].instances == 2 - 1
    assert evaluation.stats["bbox"]["AP"] == pytest.approx(1)


# --- categories -------------------------------------------------------------------------------------


def test_categories_are_matched_by_name() -> None:
    data = [Category(1, "plate"), Category(2, "cup")]
    assert match_categories(CATEGORIES, data, Path("gt.json")) == [Category(2, "cup"), Category(1, "plate")]
    assert match_categories(CATEGORIES, CATEGORIES, Path("gt.json")) == CATEGORIES


def test_classes_that_the_data_lack_are_not_reported() -> None:
    matched = match_categories(CATEGORIES, [Category(7, "cup")], Path("gt.json"))
    assert matched == [Category(7, "cup") if each.name == "cup" else None for each in CATEGORIES]
    found = Fixed()._found((50, 80), torch.device("cpu"))
    kept = to_results(found, 1, matched)
    every = to_results(found, 1, CATEGORIES)
    cup = next(each.id for each in CATEGORIES if each.name == "cup")
    assert [{**result, "category_id": cup} for result in kept] == [r for r in every if r["category_id"] == cup]
    assert 0 < len(kept) < len(every)


def test_one_name_twice_is_matched_only_with_the_same_ids() -> None:
    twice = [Category(1, "cup"), Category(2, "cup")]
    assert match_categories(twice, twice, Path("gt.json")) == twice
    with pytest.raises(DataError, match="several categories have one name"):
        match_categories(twice, [Category(1, "cup"), Category(3, "cup")], Path("gt.json"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([*CATEGORIES, Category(91, "fork")], "Only in the data: fork; only in the model: none"),
        ([Category(7, "plate"), Category(90, "mug")], "Only in the data: mug; only in the model: cup"),
    ],
)
def test_other_categories_are_refused(data: list[Category], said: str) -> None:
    with pytest.raises(DataError, match=f"gt.json: .*{said}"):
        match_categories(CATEGORIES, data, Path("gt.json"))
