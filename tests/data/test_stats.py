"""Counting what a split holds."""

from __future__ import annotations

from pathlib import Path

from dsctool.data.layout import find_splits
from dsctool.data.stats import ClassCount, Spread, describe
from tests.data.tiny import tiny_content, write_tiny


def test_counts(tmp_path: Path) -> None:
    stats = describe(write_tiny(tmp_path))
    assert (stats.images, stats.images_without_instances, stats.instances, stats.crowds) == (2, 1, 2, 1)
    assert (stats.small, stats.medium, stats.large) == (2, 0, 0)
    assert stats.instances_per_image == Spread(0, 1, 2)
    assert stats.widths == Spread(40, 50, 60)
    assert stats.landscape_images == 1
    assert stats.overlapping == stats.overlapping_same_class == [0] * 5
    assert stats.classes == [ClassCount(5, "airplane", 1, 1), ClassCount(90, "toothbrush", 1, 1)]
    assert stats.faults == 0


def test_overlap_is_strictly_greater(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][1]["bbox"] = [10, 10, 20, 4]  # IoU with annotation 11: 80 / 400
    assert describe(write_tiny(tmp_path, content)).overlapping == [2, 2, 0, 0, 0]


def test_neighbours_of_the_same_class_alone(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][1]["bbox"] = [10, 10, 20, 4]
    assert describe(write_tiny(tmp_path / "two", content)).overlapping_same_class == [0] * 5
    content["annotations"][1]["category_id"] = content["annotations"][0]["category_id"]
    assert describe(write_tiny(tmp_path / "one", content)).overlapping_same_class == [2, 2, 0, 0, 0]


def test_faulty_entries_are_left_out_and_counted(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["category_id"] = 1
    stats = describe(write_tiny(tmp_path, content))
    assert (stats.instances, stats.faults) == (1, 1)


def test_numbers_of_real_sets(real_data: Path) -> None:
    train, val = (describe(files) for files in find_splits(real_data / "coco-mini"))
    assert (train.instances, train.crowds) == (1430, 14)
    assert (train.small, train.medium, train.large) == (607, 535, 288)
    assert val.overlapping == [666, 346, 177, 80, 35]
