"""Many instances in a large image take the memory of bitmaps of the size they are used at, and little else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsctool.config.schema import DataConfig, ResizeConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import SplitFiles
from dsctool.data.transforms import Annotated, collate
from dsctool.ops import masks
from dsctool.ops.masks import mask_targets
from dsctool.structures import Instances, mask_areas
from tests.data.tiny import write_tiny
from tests.memory import peak_bytes

SIDE, COUNT = 1000, 80
BITMAPS = COUNT * SIDE * SIDE
REST = 60 * 10**6
"""What may be taken besides, whatever the number of instances: the picture as float32 and copies of it."""


def _write_crowded(root: Path) -> SplitFiles:
    square = [100, 100, 900, 100, 900, 900, 100, 900]
    annotation = {"image_id": 1, "category_id": 1, "bbox": [100, 100, 800, 800], "area": 640000, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "crowded.png", "width": SIDE, "height": SIDE}],
        "annotations": [{"id": number, "segmentation": [square], **annotation} for number in range(COUNT)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    files = write_tiny(root, content)
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(files.images / "crowded.png")
    return files


@pytest.mark.parametrize("semantic", ["instances", "none"])
def test_loading(tmp_path: Path, semantic: str) -> None:
    small = ResizeConfig(short_sides=(200,))
    config = DataConfig.model_validate({"train_resize": small, "flip": 1, "workers": 0, "semantic": semantic})
    dataset = CocoDataset.for_training(_write_crowded(tmp_path), config)
    assert peak_bytes(lambda: collate([dataset[0]], 32)) < REST  # their own bitmaps take more


def _bitmaps() -> torch.Tensor:
    bitmaps = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.uint8)
    bitmaps[:, 100:900, 100:900] = 1
    return bitmaps


def test_areas() -> None:
    bitmaps = _bitmaps()
    instances = Instances(torch.zeros(COUNT, 4), torch.zeros(COUNT), torch.zeros(COUNT), bitmaps.bool())
    assert peak_bytes(lambda: mask_areas(bitmaps)) < REST
    assert peak_bytes(lambda: instances.areas) < REST
    assert instances.areas.tolist() == [640000.0] * COUNT


def test_targets_of_the_losses() -> None:
    """The masks themselves are not copied; the semantic map is drawn on its own grid."""
    sample = Annotated(
        torch.zeros(3, SIDE, SIDE, dtype=torch.uint8),
        torch.zeros(COUNT, 4),
        torch.zeros(COUNT, dtype=torch.int64),
        _bitmaps(),
        background=1,
    )
    assert peak_bytes(sample.targets) < REST
    assert peak_bytes(replace(sample, areas=torch.zeros(COUNT)).targets) < REST


def test_targets_of_the_mask_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bitmaps at a time become float32."""
    monkeypatch.setattr(masks, "BITMAP_VALUES", 4 * SIDE * SIDE)
    bitmaps, boxes = _bitmaps(), torch.tensor([[100.0, 100.0, 140.0, 140.0]]).repeat(COUNT, 1)
    assert peak_bytes(lambda: mask_targets(bitmaps, boxes, torch.arange(COUNT), 28)) < 2 * REST
