"""Measures of instances, against scikit-image on whole pictures."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from dsctool.coco_results import Result, Rle
from dsctool.data.records import Category
from dsctool.engine.measures import InstanceTable, PixelSize, regionprops
from dsctool.errors import DsctoolError

CATEGORIES = [Category(7, "cell"), Category(90, "spore")]
HEIGHT, WIDTH = 40, 60


def result(mask: np.ndarray, *, category: int = 7, score: float = 0.9) -> Result:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    box = [float(side) for side in coco_mask.toBbox(rle)]
    encoded = Rle(size=list(rle["size"]), counts=rle["counts"].decode())
    return Result(image_id=3, category_id=category, bbox=box, score=score, segmentation=encoded)


def ellipse(y: float, x: float, high: float, wide: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows - y) / high) ** 2 + ((columns - x) / wide) ** 2 <= 1


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8))


def table(threshold: float = 0.3, pixel_size: PixelSize | None = None) -> InstanceTable:
    return InstanceTable(CATEGORIES, {7: threshold, 90: 0.7}, pixel_size)


def test_against_scikit_image_on_the_whole_picture(picture: torch.Tensor) -> None:
    """Overlapping, with a hole, in two parts, cut by the border, of one pixel."""
    from skimage import measure

    hole = ellipse(20, 20, 12, 9) & ~ellipse(20, 20, 4, 4)
    parts = ellipse(10, 40, 4, 4) | ellipse(30, 50, 5, 6)
    masks = [hole, parts, ellipse(18, 24, 9, 14), ellipse(-2, 30, 9, 8), ellipse(5, 5, 0.5, 0.5)]
    rows = table().rows([result(mask) for mask in masks], picture, "a.png")
    columns = table().columns
    assert len(rows) == len(masks)
    for row, mask in zip(rows, masks, strict=True):
        assert len(row) == len(columns)
        cells = dict(zip(columns, row, strict=True))
        (region,) = measure.regionprops(mask.astype(int), picture.permute(1, 2, 0).numpy())
        y1, x1, y2, x2 = region.bbox
        expected = {
            "image_id": 3, "image": "a.png", "category_id": 7, "class": "cell", "score": 0.9,
            "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1,
            "area": region.area, "perimeter": region.perimeter,
            "equivalent_diameter": region.equivalent_diameter_area, "major_axis": region.axis_major_length,
            "minor_axis": region.axis_minor_length, "eccentricity": region.eccentricity, "solidity": region.solidity,
            **dict(zip(("mean_red", "mean_green", "mean_blue"), region.intensity_mean, strict=True)),
            "touches_border": int(y1 == 0 or x1 == 0 or y2 == HEIGHT or x2 == WIDTH),
        }  # fmt: skip
        assert cells == {
            name: value if isinstance(value, str) else pytest.approx(float(value), rel=1e-5)
            for name, value in expected.items()
        }
    assert [row[-1] for row in rows] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (1, 1)])
def test_a_mask_that_fills_the_picture(size: tuple[int, int]) -> None:
    pixels = torch.full((3, *size), 7, dtype=torch.uint8)
    (row,) = table().rows([result(np.ones(size, dtype=bool))], pixels, "a")
    cells = dict(zip(table().columns, row, strict=True))
    assert (cells["area"], cells["solidity"], cells["mean_green"], cells["touches_border"]) == (
        math.prod(size),
        1,
        7,
        1,
    )


def test_physical_units(picture: torch.Tensor) -> None:
    own = table(pixel_size=PixelSize(0.5, "um"))
    (row,) = own.rows([result(ellipse(20, 20, 8, 6))], picture, "a")
    cells = dict(zip(own.columns, row, strict=True))
    assert [name for name in own.columns if "um" in name] == [
        "area_um2", "perimeter_um", "equivalent_diameter_um", "major_axis_um", "minor_axis_um"
    ]  # fmt: skip
    assert cells["area_um2"] == pytest.approx(cells["area"] * 0.25)
    for name in ("perimeter", "equivalent_diameter", "major_axis", "minor_axis"):
        assert cells[f"{name}_um"] == pytest.approx(cells[name] * 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0.325um", (0.325, "um")), ("0.325 µm", (0.325, "um")), (".5\u03bcm", (0.5, "um")), ("2e-3mm", (0.002, "mm")),
     ("30m", (30, "m")), ("4", (4, "unit"))],
)  # fmt: skip
def test_sizes_of_pixels(text: str, size: tuple[float, str]) -> None:
    assert PixelSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "um", "0um", "-1um", "1,5um", "1um2", "infm", "nan", "1 2"])
def test_sizes_of_nothing(text: str) -> None:
    with pytest.raises(DsctoolError, match=r"give the side of a pixel above 0 and its unit, such as 0\.325um"):
        PixelSize.parse(text)


def test_thresholds_by_class_and_counts(picture: torch.Tensor) -> None:
    """What is below has no row and does not count; without masks there are boxes, and no shapes."""
    boxes = [([0.5, 3.0, 4.0, 5.0], 7, 0.31), ([5.0, 5.0, 4.0, 5.0], 7, 0.3), ([5.0, 5.0, 4.0, 5.0], 7, 0.29)]
    boxes += [([50.0, 30.0, 9.5, 5.0], 90, 0.69)]
    found = [Result(image_id=3, category_id=category, bbox=box, score=score) for box, category, score in boxes]
    own = table()
    rows = own.rows(found, picture, "a.png")
    assert [row[4] for row in rows] == [0.31, 0.3]
    assert [row[-1] for row in rows] == [1, 0]
    assert rows[1][5:] == [5.0, 5.0, 4.0, 5.0, *[None] * 10, 0]
    assert list(own.counts(rows, 3, "a.png")) == [[3, "a.png", 7, "cell", 2], [3, "a.png", 90, "spore", 0]]
    assert list(own.counts([], 4, "b.png")) == [[4, "b.png", 7, "cell", 0], [4, "b.png", 90, "spore", 0]]


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(DsctoolError, match=r"scikit-image.*pip install 'dsctool\[measures\]', or leave --table out"):
        regionprops()
