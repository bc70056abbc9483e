"""What the channels of a semantic branch mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsctool.config.model_schema import STUFFTHINGMAPS_CLASSES
from dsctool.data.records import Category
from dsctool.data.stuff import COCO_STUFF, category_color, name_channels, read_labels, values_in
from dsctool.data.synthetic.scenes import CLASSES, STUFF
from dsctool.errors import DataError
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.visualize.colors import shade

NEVER = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 182}
"""Channels that are never a target: ids of things without annotations, and the last one."""


def test_coco_stuff_as_data() -> None:
    kept = [each for each in COCO_STUFF.stuff if len(each.channels) == 1]
    merged = [each for each in COCO_STUFF.stuff if len(each.channels) > 1]
    members = [channel for each in merged for channel in each.channels]
    assert (len(kept), len(merged), len(members), len(COCO_STUFF.removed)) == (36, 17, 43, 12)
    assert all(each.channels == (each.id - 1,) for each in kept)
    assert [each.id for each in merged] == list(range(184, 201))
    assert all(each.name.endswith("-merged") for each in merged)
    assert not any(each.name.endswith("-merged") for each in kept)
    ids = [each.id for each in COCO_STUFF.stuff]
    assert ids == sorted(ids)
    channels = [channel for group in COCO_STUFF.groups for channel in group]
    assert len(channels) == len(set(channels)), "every channel at most once"
    assert sorted(channels) == list(range(182)), "all but the last"
    assert {channel for group in COCO_STUFF.groups[:-2] for channel in group} | set(COCO_STUFF.removed) == set(
        range(91, 182)
    )
    things = {category.id - 1 for category in COCO_CATEGORIES}
    assert set(COCO_STUFF.things) - things == {channel for channel in NEVER if channel < 91}
    assert set(range(STUFFTHINGMAPS_CLASSES)) - set(channels) == {182}
    assert len(things) + len(COCO_STUFF.stuff) == 133
    assert COCO_STUFF.count == STUFFTHINGMAPS_CLASSES - 1
    assert len({each.name for each in COCO_STUFF.stuff} | {category.name for category in COCO_CATEGORIES}) == 133


@pytest.mark.parametrize(
    ("id_", "name", "members"),
    [(154, "sand", [154]), (193, "grass-merged", [124, 134, 163]), (187, "sky-other-merged", [106, 120, 157])],
)
def test_some_of_coco_stuff(id_: int, name: str, members: list[int]) -> None:
    (found,) = (each for each in COCO_STUFF.stuff if each.id == id_)
    assert (found.name, [channel + 1 for channel in found.channels]) == (name, members)


def test_labels_of_generated_scenes(synthetic_root: Path) -> None:
    names = read_labels(synthetic_root / "stuffthingmaps" / "labels.txt")
    assert names == (*CLASSES, *STUFF)
    found = name_channels(names, [Category(label + 1, name) for label, name in enumerate(CLASSES)])
    assert found is not None
    assert [each.name for each in found.stuff] == list(STUFF)
    assert [each.channels for each in found.stuff] == [(len(CLASSES) + i,) for i in range(len(STUFF))]
    assert [each.id for each in found.stuff] == [len(CLASSES) + i + 1 for i in range(len(STUFF))]
    assert found.things == tuple(range(len(CLASSES)))
    assert found.removed == ()
    assert found.count == len(names)


def test_coco_stuffs_own_labels_count_from_one(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("0: unlabeled\n1: person\n\n4: sand\n")
    assert read_labels(path) == ("person", "", "", "sand")


def test_maps_may_have_more_values_than_coco_stuffs(tmp_path: Path) -> None:
    maps, labels = tmp_path / "train", tmp_path / "labels.txt"
    assert values_in(maps) == STUFFTHINGMAPS_CLASSES
    for text, count in (("3: sand", STUFFTHINGMAPS_CLASSES), ("199: rug", 200), ("no names", STUFFTHINGMAPS_CLASSES)):
        labels.write_text(text)
        assert values_in(maps) == count


def test_ids_of_stuff_are_no_ids_of_things() -> None:
    names = ("cup", "", "", "", "", "", "cloth", "wood")
    found = name_channels(names, [Category(7, "cup"), Category(90, "plate")])
    assert found is not None
    assert [(each.id, each.name, each.channels) for each in found.stuff] == [(97, "cloth", (6,)), (98, "wood", (7,))]
    assert found.things == (0,)
    assert name_channels(["plate", "", "cup"], [Category(7, "cup"), Category(90, "plate")]) is None
    assert name_channels([], []) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sand\n", "line 1 is 'sand', not 'NUMBER: NAME'"),
        ("0: sand\n-1: rock\n", "line 2"),
        ("0: sand\n0: rock\n", "line 2.*an earlier line"),
        ("0: sand\n1: sand\n", "line 2.*an earlier line"),
        ("0:\n", "line 1"),
        ("999999999: sand\n", "line 1"),
    ],
)
def test_labels_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"labels\.txt: {said}"):
        read_labels(path)


def test_colours_are_stable_different_and_muted_for_stuff() -> None:
    things = [category_color(category.id, is_thing=True) for category in COCO_CATEGORIES]
    stuff = [category_color(each.id, is_thing=False) for each in COCO_STUFF.stuff]
    assert len({*things, *stuff}) == 133
    assert min(max(color) - min(color) for color in things) > max(max(color) - min(color) for color in stuff)
    assert category_color(1, is_thing=True) == (77, 129, 255)
    shades = [shade(things[0], number) for number in range(15)]
    assert len(set(shades)) == 15
    assert shades[0] == things[0]


def test_every_value_of_real_maps_means_something(real_data: Path) -> None:
    """COCO-Stuff's own: of ten images, 255 where nothing is labelled."""
    meant = {channel for group in COCO_STUFF.groups for channel in group}
    files = sorted((real_data / "panoptic" / "coco-stuffthing-10img").rglob("stuffthingmaps/**/*.png"))
    values = {value for file in files for value in np.unique(np.asarray(Image.open(file))).tolist()}
    assert len(files) == 10
    assert values - {255} <= meant
    assert len(values & {channel for each in COCO_STUFF.stuff for channel in each.channels}) > 20
