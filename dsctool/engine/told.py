"""What callers of the Python API are warned of, where commands print a line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from dsctool.config.schema import DataConfig
from dsctool.engine.object_sizes import SmallCount
from dsctool.engine.tiles import shrink_note
from dsctool.errors import PictureWarning
from dsctool.structures import Instances
from dsctool.terms import Size

LIKELY = 0.3
"""Instances that score less say nothing of what is in a picture."""


class Told:
    """Warns of the pictures of a call, once of each kind of thing.

    above: how many calls lie between who calls a method and the line that a warning is about.
    """

    def __init__(self, config: DataConfig, *, above: int) -> None:
        self._config, self._stacklevel = config, above + 3
        self._small = SmallCount(config, {})
        self._said: set[str] = set()

    def picture(self, name: str, size: Size, remarks: Iterable[str]) -> None:
        """What is known of one of ``size``; remarks: what its reading gave."""
        for remark in remarks:
            self._once(remark, f"{name}: {remark}")
        if (note := shrink_note(name, size, self._config)) is not None:
            self._once("shrunk", note)

    def found(self, instances: Instances, size: Size) -> None:
        """What was found in one, in its pixels."""
        boxes = instances.boxes[instances.scores >= LIKELY]
        sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
        self._small.add_sides([(width, height) for width, height in sides], size)

    def end(self) -> None:
        """When all are done."""
        for note in self._small.notes():
            self._once(note, note)

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(text, PictureWarning, stacklevel=self._stacklevel)
