"""Values of JSON files that know where they stand, so that errors can say it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsctool.data.records import json_kind
from dsctool.errors import DataError
from dsctool.files import read_json


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a JSON file. where: the way to it, as in ``shapes[3].points``."""

    value: Any
    file: Path
    where: str = ""

    @classmethod
    def read(cls, file: Path) -> Node:
        """All that a file holds."""
        return cls(read_json(file), file)

    def __str__(self) -> str:
        return f"{self.file}: {self.where}" if self.where else str(self.file)

    def error(self, problem: str) -> DataError:
        """That something is wrong here."""
        return DataError(f"{self}: {problem}")

    def get(self, key: str) -> Node | None:
        """What an object has under a key; None where it has nothing, or null."""
        self._must_be(dict, "an object")
        value = self.value.get(key)
        return None if value is None else self._below(value, f".{key}" if self.where else key)

    def at(self, key: str) -> Node:
        """The same, which must be there."""
        found = self.get(key)
        if found is None:
            raise self.error(f"missing key '{key}'")
        return found

    def has(self, *keys: str) -> bool:
        """Whether it is an object with all these keys."""
        return isinstance(self.value, dict) and all(key in self.value for key in keys)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of an object."""
        self._must_be(dict, "an object")
        return ((key, self._below(value, f"[{key!r}]")) for key, value in self.value.items())

    def elements(self) -> list[Node]:
        """Those of a list."""
        self._must_be(list, "a list")
        return [self._below(value, f"[{place}]") for place, value in enumerate(self.value)]

    def text(self) -> str:
        """A text that is not empty."""
        self._must_be(str, "a text")
        if not self.value.strip() or "\0" in self.value:
            raise self.error("is empty")
        return str(self.value)

    def has_value(self, key: str, value: object) -> bool:
        """Whether it is an object that has this under the key."""
        return self.has(key) and type(self.value[key]) is type(value) and bool(self.value[key] == value)

    def is_on(self, key: str) -> bool:
        """Whether an object has something under a key that is not false, 0 or empty."""
        found = self.get(key)
        return found is not None and bool(found.value)

    def id(self) -> int | str:
        """A whole number or a text."""
        if type(self.value) not in (int, str):
            raise self.error(f"must be a whole number or a text, not {_shown(self.value)}")
        return self.value

    def number(self) -> float:
        """A finite number; texts that are one count, since several tools write them."""
        try:
            number = math.nan if isinstance(self.value, bool | list | dict) else float(self.value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"must be a finite number, not {_shown(self.value)}")
        return number

    def whole(self, least: int = 0) -> int:
        """A whole number, at least ``least``."""
        number = self.number()
        if number != int(number) or number < least:
            raise self.error(f"must be a whole number from {least}, not {_shown(self.value)}")
        return int(number)

    def numbers(self) -> list[float]:
        """A list of finite numbers."""
        self._must_be(list, "a list")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in self.value):
            return [element.number() for element in self.elements()]
        return [float(value) for value in self.value]

    def _below(self, value: Any, step: str) -> Node:
        return Node(value, self.file, f"{self.where}{step}")

    def _must_be(self, kind: type, name: str) -> None:
        if not isinstance(self.value, kind):
            raise self.error(f"must be {name}, not {json_kind(self.value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
