"""Stuff: what the channels of a semantic branch are called, and which panoptic category each belongs to.

COCO-Stuff's maps have a value for every pixel, the COCO-Stuff id less one: things as COCO numbers them, from 0 to 90,
then stuff to 181; 255 where nothing is labelled. COCO's panoptic task keeps 36 kinds of stuff, merges 43 into 17 and
removes 12 (https://cocodataset.org/#panoptic-eval). Other maps' values have names of their own (:func:`read_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path

from dsctool.config.model_schema import STUFFTHINGMAPS_CLASSES
from dsctool.data.records import Category
from dsctool.errors import DataError
from dsctool.files import read_bytes

LABELS = "labels.txt"
"""Beside the folders of maps: the names of their values."""
_FIRST_STUFF = 92
"""The least COCO-Stuff id of stuff; things have those below."""

_KEPT = """
92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff, 118 floor-wood, 119 flower,
122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, 138 net, 141 pillow, 144 platform, 145 playingfield,
147 railroad, 148 river, 149 road, 151 roof, 154 sand, 155 sea, 156 shelf, 159 snow, 161 stairs, 166 tent, 168 towel,
171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 178 water-other, 180 window-blind, 181 window-other
"""
"""Panoptic categories that are a COCO-Stuff class each, of the same id."""

_MERGED = """
184 tree-merged: 94 97 129 169
185 fence-merged: 99 113 146
186 ceiling-merged: 102 103
187 sky-other-merged: 106 120 157
188 cabinet-merged: 98 108
189 table-merged: 110 165
190 floor-other-merged: 114 115 117
191 pavement-merged: 116 140
192 mountain-merged: 127 135
193 grass-merged: 124 134 163
194 dirt-merged: 111 136
195 paper-merged: 137 139
196 food-other-merged: 121 153 170
197 building-other-merged: 96 158
198 rock-merged: 150 162
199 wall-other-merged: 172 173 174
200 rug-merged: 101 131 152
"""
"""Panoptic categories that are several COCO-Stuff classes."""

_LARGEST_NUMBER = 256
"""In a file of names: values have 8 bits."""

_REMOVED = (104, 105, 123, 126, 132, 142, 143, 160, 164, 167, 179, 182)
"""COCO-Stuff ids whose pixels are void in the panoptic ground truth."""


@dataclass(frozen=True)
class StuffClass:
    """A panoptic category of stuff. channels: of the semantic branch that mean it."""

    id: int
    name: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class StuffChannels:
    """The channels of a semantic branch, in parts that share none.

    stuff: by ascending id. things: what instances say better. removed: what no category means. Channels in none of
    them are never a target of training.
    """

    stuff: tuple[StuffClass, ...]
    things: tuple[int, ...]
    removed: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many channels the branch must have at least."""
        return 1 + max(channel for group in self.groups for channel in group)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """What a pixel is decided among: each kind of stuff, then things, then what was removed."""
        others = [group for group in (self.things, self.removed) if group]
        return [*(each.channels for each in self.stuff), *others]


def _coco_stuff() -> StuffChannels:
    stuff = []
    for entry in _KEPT.split(","):
        number, name = entry.split()
        stuff.append(StuffClass(int(number), name, (int(number) - 1,)))
    for line in _MERGED.strip().splitlines():
        head, members = line.split(":")
        number, name = head.split()
        stuff.append(StuffClass(int(number), name, tuple(int(member) - 1 for member in members.split())))
    return StuffChannels(
        tuple(stuff), things=tuple(range(_FIRST_STUFF - 1)), removed=tuple(identity - 1 for identity in _REMOVED)
    )


COCO_STUFF = _coco_stuff()
"""Of the 183 channels of COCO-Stuff's maps, the last of which is never a target."""


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of a semantic map's values from 0 on, ``NUMBER: NAME`` a line; empty where the file has none.

    As ``labels.txt`` of generated data, and of COCO-Stuff, which has 0 for ``unlabeled`` and numbers one above values.

    Raises:
        DataError: the file cannot be read, has a line of another form, or a number or a name twice.
    """
    named: dict[int, str] = {}
    for number, line in enumerate(read_bytes(path).decode().splitlines(), start=1):
        if not line.strip():
            continue
        value, colon, name = (part.strip() for part in line.partition(":"))
        if not colon or not name or not (value.isascii() and value.isdigit() and int(value) <= _LARGEST_NUMBER):
            raise DataError(f"{path}: line {number} is {line[:60]!r}, not 'NUMBER: NAME' as in '0: sand'")
        if int(value) in named or name in named.values():
            raise DataError(f"{path}: line {number}: {line[:60]!r} has a number or a name that an earlier line has")
        named[int(value)] = name
    if named.get(0) in ("unlabeled", "unlabelled"):
        named = {value - 1: name for value, name in named.items() if value > 0}
    return tuple(named.get(value, "") for value in range(max(named, default=-1) + 1))


def values_in(maps: Path) -> int:
    """How many values the maps in a folder may have: 183 as COCO-Stuff's, or more where ``labels.txt`` names more."""
    path = maps.parent / LABELS
    try:
        return max(STUFFTHINGMAPS_CLASSES, len(read_labels(path)) if path.is_file() else 0)
    except DataError:  # a run that would take names from it says so
        return STUFFTHINGMAPS_CLASSES


def name_channels(names: Sequence[str], categories: Sequence[Category]) -> StuffChannels | None:
    """Channels that are called ``names``, from 0 on: those of the detector's classes are things, all others stuff.

    Stuff has the id channel + 1, and where that is a class's already, those behind the largest of the classes' ids.
    None where there is no stuff.
    """
    classes = {category.name: category.id for category in categories}
    things = tuple(channel for channel, name in enumerate(names) if name in classes)
    stuff = {channel: name for channel, name in enumerate(names) if name and name not in classes}
    first = 1
    if {channel + first for channel in stuff} & set(classes.values()):
        first = max(classes.values()) + 1
    kinds = (StuffClass(channel + first, name, (channel,)) for channel, name in stuff.items())
    return StuffChannels(tuple(kinds), things) if stuff else None


_GOLDEN = 0.6180339887498949  # part of the circle of hues between ids that follow each other


def category_color(identity: int, *, is_thing: bool) -> tuple[int, int, int]:
    """The colour of a panoptic category, which follows from its id: strong for things, muted for stuff.

    Ids that follow each other go around the circle of hues by the golden ratio, so that near ids look different.
    """
    hue = identity * _GOLDEN % 1
    turn = identity // 5 % 3  # tells those apart whose hues come near each other again
    strong, muted = (0.70 + 0.12 * turn, 1.0 - 0.07 * turn), (0.22 + 0.10 * turn, 0.74 - 0.10 * turn)
    saturation, value = strong if is_thing else muted
    red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue, saturation, value))
    return red, green, blue
