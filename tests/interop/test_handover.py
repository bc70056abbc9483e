"""What was found, as supervision and FiftyOne take it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dsctool.data.records import Category
from dsctool.errors import DsctoolError
from dsctool.rle import Rle
from dsctool.structures import Instances

HEIGHT, WIDTH = 40, 50


def found(*, masks: bool = True) -> Instances:
    boxes = torch.tensor([[10.5, 5.0, 20.0, 15.0], [30.0, 20.0, 50.0, 40.0], [0.0, 0.0, 0.0, 0.0]])
    bitmaps = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    bitmaps[0, 5:15, 11:20] = True
    bitmaps[1, 20:40, 30:50] = True
    return Instances(
        boxes,
        torch.tensor([0.9, 0.8, 0.1]),
        torch.tensor([1, 0, 1]),
        bitmaps if masks else None,
        (HEIGHT, WIDTH),
        (Category(3, "cup"), Category(7, "plate")),
    )


def encoded() -> Instances:
    from pycocotools import mask as coco_mask

    whole = found()
    assert whole.masks is not None
    masks = tuple(Rle(**coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))) for mask in whole.masks)
    return Instances(whole.boxes, whole.scores, whole.labels, None, whole.size, whole.categories, encoded=masks)


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    for instances in (found(), encoded()):
        detections = instances.to_supervision()
        assert isinstance(detections, supervision.Detections)
        assert detections.xyxy.tolist() == instances.boxes.tolist()
        assert detections.class_id.tolist() == [1, 0, 1]
        assert detections.confidence.tolist() == pytest.approx([0.9, 0.8, 0.1])
        assert detections["class_name"].tolist() == ["plate", "cup", "plate"]
        assert detections.mask.sum(axis=(1, 2)).tolist() == [90, 400, 0]
    assert found(masks=False).to_supervision().mask is None
    assert len(found()[:0].to_supervision()) == 0


class Pretended(ModuleType):
    """What is called of FiftyOne, which is a large program with a data base."""

    class Detection(dict[str, Any]):
        pass

    class Detections(dict[str, Any]):
        pass


def test_fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", Pretended("fiftyone"))
    plate, cup, nothing = found().to_fiftyone()["detections"]
    assert (plate["label"], cup["label"]) == ("plate", "cup")
    assert plate["confidence"] == pytest.approx(0.9)
    assert plate["bounding_box"] == pytest.approx([10 / 50, 5 / 40, 10 / 50, 10 / 40])  # whole pixels
    assert plate["mask"].shape == (10, 10)
    assert plate["mask"].sum() == 90
    assert cup["mask"].all()
    assert nothing["mask"].shape == (1, 1)
    for detection, same in zip(found().to_fiftyone()["detections"], encoded().to_fiftyone()["detections"], strict=True):
        np.testing.assert_array_equal(detection["mask"], same["mask"])
    boxes = found(masks=False).to_fiftyone()["detections"]
    assert boxes[0]["mask"] is None
    assert boxes[0]["bounding_box"] == pytest.approx([10.5 / 50, 5 / 40, 9.5 / 50, 10 / 40])


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(DsctoolError, match="supervision is not installed: pip install supervision"):
        found().to_supervision()
