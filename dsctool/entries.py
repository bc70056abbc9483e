"""Lists of large JSON files, whose entries become Python objects only when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsctool.errors import DataError
from dsctool.files import read_bytes, read_json

Typed = TypeVar("Typed")


class Entries(Sequence[Any]):
    """The entries of a JSON list: as text, or as values where they were values already."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._as_text = bool(len(items)) and isinstance(items[0], msgspec.Raw)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Entries(self._items[index])
        item = self._items[index]
        return _value(item) if self._as_text else item

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def lengths(self, of_value: Callable[[Any], int]) -> NDArray[np.int64]:
        """``(n,)``: how long the texts of the entries are; ``of_value`` says it for those that were values already."""
        return np.fromiter(map(len if self._as_text else of_value, self._items), np.int64, len(self._items))

    def typed(self, of: type[Typed]) -> list[Typed | None]:
        """The entries as ``of``; None for those that are not, exactly as JSON has it."""
        convert: Callable[[Any], Typed]
        convert = msgspec.json.Decoder(of).decode if self._as_text else partial(msgspec.convert, type=of)
        try:
            return [convert(item) for item in self._items]
        except _MISFITS:
            return [_tried(convert, item) for item in self._items]


def _value(text: msgspec.Raw) -> Any:
    try:
        return json.loads(bytes(text))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in thousands of lists
        shown = bytes(text)[:80].decode(errors="replace")
        raise DataError(f"an entry is not usable JSON: {error}: {shown}...") from None


def _tried(convert: Callable[[Any], Typed], item: Any) -> Typed | None:
    try:
        return convert(item)
    except _MISFITS:
        return None


def read_list(path: Path) -> object:
    """What a JSON file holds: a list as the texts of its entries, for :class:`Entries`, and anything else as it is.

    Raises:
        DataError: as :func:`dsctool.files.read_json`.
    """
    return _read(path, list[msgspec.Raw])


def read_lists(path: Path, keys: Sequence[str]) -> object:
    """The same for a JSON object that holds lists, by ``keys``."""
    content = _read(path, dict[str, msgspec.Raw])
    if not isinstance(content, Mapping) or not all(isinstance(value, msgspec.Raw) for value in content.values()):
        return content
    try:
        return {key: msgspec.json.decode(content[key], type=list[msgspec.Raw]) for key in keys if key in content}
    except _MISFITS:
        return {key: json.loads(bytes(content[key])) for key in keys if key in content}


def _read(path: Path, kind: Any) -> object:
    """Texts where the file is valid for a parser that is stricter than Python's, else whatever Python makes of it."""
    try:
        return msgspec.json.decode(read_bytes(path), type=kind)
    except _MISFITS:
        return read_json(path)


_MISFITS = (msgspec.MsgspecError, UnicodeError, RecursionError)
