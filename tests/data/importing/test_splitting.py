"""Parts of a data set: shares, seeds, groups, and the source's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dsctool.data.importing.record import Picture
from dsctool.data.importing.splitting import split_pictures
from dsctool.errors import DataError


def pictures(names: Sequence[str], splits: Sequence[str | None] | None = None) -> list[Picture]:
    own = splits or [None] * len(names)
    return [Picture(Path(name), name, (1, 1), (), split) for name, split in zip(names, own, strict=True)]


PLATES = [f"plate{plate}/well{well}_{field}.png" for plate in range(5) for well in "AB" for field in range(3)]


def names(parts: dict[str, list[Picture]]) -> dict[str, set[str]]:
    return {part: {picture.name for picture in each} for part, each in parts.items()}


@pytest.mark.parametrize(
    ("group_by", "key"),
    [("folder", lambda name: name.split("/")[0]), (r"well(.)_", lambda name: name.split("well")[1][0]),
     (r"plate\d/well.", lambda name: name.split("_")[0])],
)  # fmt: skip
def test_no_group_is_in_both(group_by: str, key: object) -> None:
    assert callable(key)
    for seed in range(20):
        parts = names(split_pictures(pictures(PLATES), share=0.3, seed=seed, group_by=group_by))
        groups = [{key(name) for name in each} for each in parts.values()]
        assert len(groups) == 2
        assert groups[0] & groups[1] == set()
        assert parts["train"] | parts["val"] == set(PLATES)


def test_the_share_is_met_and_the_seed_decides() -> None:
    drawn = [names(split_pictures(pictures(PLATES), share=0.2, seed=seed, group_by=None)) for seed in (0, 0, 1)]
    assert [len(each["val"]) for each in drawn] == [6, 6, 6]
    assert drawn[0] == drawn[1] != drawn[2]
    backwards = split_pictures(pictures(PLATES[::-1]), share=0.2, seed=0, group_by=None)
    assert names(backwards) == drawn[0], "whatever order the files come in"


def test_the_sources_own_parts_stay_unless_a_share_is_asked_for() -> None:
    own = ["train"] * 10 + ["val"] * 10 + ["test"] * 10
    kept = split_pictures(pictures(PLATES, own), share=None, seed=0, group_by=None)
    assert {part: len(each) for part, each in kept.items()} == {"train": 10, "val": 10, "test": 10}
    anew = split_pictures(pictures(PLATES, own), share=0.1, seed=0, group_by=None)
    assert {part: len(each) for part, each in anew.items()} == {"train": 18, "val": 2, "test": 10}
    missing = split_pictures(pictures(PLATES, ["train"] * 30), share=None, seed=0, group_by=None)
    assert {part: len(each) for part, each in missing.items()} == {"train": 24, "val": 6}
    assert set(split_pictures(pictures(PLATES), share=0, seed=0, group_by=None)) == {"train"}


def test_leaks_and_what_cannot_be_split_are_refused() -> None:
    own = ["train", "val"] * 15
    with pytest.raises(DataError, match=r"group 'plate0' is in the source's train .* and val"):
        split_pictures(pictures(PLATES, own), share=None, seed=0, group_by="folder")
    with pytest.raises(DataError, match="one group of 6 pictures, plate0: nothing is left"):
        split_pictures(pictures(PLATES[:6]), share=0.2, seed=0, group_by="folder")
    with pytest.raises(DataError, match=r"does not match plate0/wellA_0\.png"):
        split_pictures(pictures(PLATES), share=0.2, seed=0, group_by="video")
    with pytest.raises(DataError, match="nor a regular expression"):
        split_pictures(pictures(PLATES), share=0.2, seed=0, group_by="(")
