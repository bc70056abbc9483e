"""Finding the files of a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.schema import SplitConfig
from dsctool.data.layout import SplitFiles, find_split, find_splits, find_test_dev
from dsctool.errors import DataError


def _layout(root: Path, *splits: str, maps: tuple[str, ...] = ()) -> Path:
    (root / "annotations").mkdir()
    for split in splits:
        (root / "annotations" / f"instances_{split}.json").write_text("{}")
        (root / split).mkdir()
    for split in maps:
        (root / "stuffthingmaps" / split).mkdir(parents=True)
    return root


@pytest.mark.parametrize("name", ["train", "train2017"])
def test_the_only_split_that_fits_is_taken(tmp_path: Path, name: str) -> None:
    root = _layout(tmp_path, name, "val2017", maps=(name,))
    files = find_split(root, SplitConfig(), "train")
    assert files == SplitFiles(
        root / "annotations" / f"instances_{name}.json", root / name, root / "stuffthingmaps" / name
    )
    assert find_split(root, SplitConfig(), "val").semantic_maps is None


def test_a_named_split_wins(tmp_path: Path) -> None:
    root = _layout(tmp_path, "train2014", "train2017")
    assert find_split(root, SplitConfig(split="train2014"), "train").images == root / "train2014"


def test_explicit_paths_win(tmp_path: Path) -> None:
    root = _layout(tmp_path, "train2017")
    for folder in ("pictures", "maps"):
        (root / folder).mkdir()
    (root / "labels.json").write_text("{}")
    split = SplitConfig(annotations="labels.json", images="pictures", semantic_maps="maps")
    assert find_split(root, split, "train") == SplitFiles(root / "labels.json", root / "pictures", root / "maps")


def test_two_candidates_are_an_error_that_names_both_and_the_key(tmp_path: Path) -> None:
    root = _layout(tmp_path, "train2014", "train2017")
    with pytest.raises(DataError, match=r"train2014, train2017.*data\.train\.split"):
        find_split(root, SplitConfig(), "train")


def test_no_candidate_is_an_error_that_lists_what_was_found(tmp_path: Path) -> None:
    root = _layout(tmp_path, "train2017")
    with pytest.raises(DataError, match=r"instances_train2017\.json.*data\.val\.split"):
        find_split(root, SplitConfig(), "val")


@pytest.mark.parametrize(
    ("split", "key"),
    [
        (SplitConfig(annotations="nope.json"), "data.train.annotations"),
        (SplitConfig(split="nope"), "data.train.split"),
        (SplitConfig(images="nope"), "data.train.images"),
        (SplitConfig(semantic_maps="nope"), "data.train.semantic_maps"),
    ],
)
def test_a_missing_file_is_an_error_that_names_the_key(tmp_path: Path, split: SplitConfig, key: str) -> None:
    with pytest.raises(DataError, match=f"nope.*{key}"):
        find_split(_layout(tmp_path, "train2017"), split, "train")


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_split(tmp_path / "nope", SplitConfig(), "train")


def test_every_split_of_a_root_is_found(tmp_path: Path) -> None:
    root = _layout(tmp_path, "val2017", "train2017")
    (root / "annotations" / "captions_val2017.json").write_text("{}")
    assert [files.images.name for files in find_splits(root)] == ["train2017", "val2017"]


def test_test_dev_has_names_of_its_own(tmp_path: Path) -> None:
    root = _layout(tmp_path, "val2017")
    with pytest.raises(DataError, match=r"no file annotations/image_info_test-dev\*\.json"):
        find_test_dev(root)
    for name in ("image_info_test2017", "image_info_test-dev2017"):
        (root / "annotations" / f"{name}.json").write_text("{}")
    with pytest.raises(DataError, match="test2017: no such folder of images"):
        find_test_dev(root)
    (root / "test2017").mkdir()
    assert find_test_dev(root) == SplitFiles(root / "annotations/image_info_test-dev2017.json", root / "test2017")
    (root / "annotations/image_info_test-dev2015.json").write_text("{}")
    with pytest.raises(DataError, match="2 files"):
        find_test_dev(root)
    assert [files.images.name for files in find_splits(root)] == ["val2017"], "they are no split to learn from"
