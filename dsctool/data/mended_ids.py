"""Ids that are no whole numbers, made whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypeGuard

from dsctool.data.rules import LARGEST_ID


class Ids:
    """New ids for those of a list: 3 for 3.0 and for '3', unless another entry has it, and a free one for a name."""

    def __init__(self, whole: set[int], changed: dict[tuple[type, object], int]) -> None:
        self._whole = whole
        self._changed = changed
        self._next = max(whole | set(changed.values()), default=0)

    @classmethod
    def of(cls, ids: Sequence[object]) -> Self:
        """ids: as the list has them."""
        whole = {id_ for id_ in ids if _is_whole(id_)}
        changed: dict[tuple[type, object], int] = {}
        for id_ in ids:
            if isinstance(id_, str | float) and (type(id_), id_) not in changed:
                number = _number(id_)
                if number is not None and number not in whole and number not in changed.values():
                    changed[type(id_), id_] = number
        new = cls(whole, changed)
        for id_ in ids:
            if isinstance(id_, str) and (str, id_) not in changed:
                changed[str, id_] = new.free()
        return new

    def free(self) -> int:
        """An id that no entry has."""
        self._next = max(self._next, 0) + 1
        return self._next

    def mended(self, id_: object) -> int | None:
        """The id of an entry that had this one; None for what is no id."""
        if _is_whole(id_):
            return id_
        return self._changed.get((type(id_), id_)) if isinstance(id_, str | float) else None

    def referred(self, id_: object) -> int | None:
        """The id of the entry that is meant by this one; None where there is none."""
        if _is_whole(id_):
            return id_ if id_ in self._whole else self._changed.get((str, str(id_)))
        if isinstance(id_, str | float):
            number = _number(id_)
            return self._changed.get((type(id_), id_), number if number in self._whole else None)
        return None


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) <= LARGEST_ID


def _number(value: str | float) -> int | None:
    try:
        number = float(value)
        whole = int(value) if isinstance(value, str) else int(number)
    except (ValueError, OverflowError):
        return None
    return whole if whole == number and abs(whole) <= LARGEST_ID else None
