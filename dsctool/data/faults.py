"""Faults of a data set, and what is left out because of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsctool.errors import DataError

Subject = Literal["file", "category", "image", "annotation"]
Severity = Literal["error", "warning", "note"]

MANY = 4
"""So many equal faults are one line."""
_SHOWN = 20
_NAMED = 3

_PLURALS: dict[Subject, str] = {"category": "categories", "image": "images", "annotation": "annotations"}
_ESCAPED = frozenset(["Cc", "Cs", "Zl", "Zp"])
"""Unicode's control characters, lone surrogates, and separators of lines and paragraphs."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set; ``str()`` is the line that users see.

    file: the annotation file, or the folder.
    subject: what kind of entry the fault is in.
    id: the entry's id as the file writes it; None where it has none, or the fault concerns the whole file.
    index: the entry's place in its list, from 0; None for the whole file.
    kind: short name of the rule, for machines.
    message: what is wrong, on one line.
    severity: ``error``: training refuses it. ``warning``: training lives with it, by the published rules. ``note``: no
        fault, but good to know.
    """

    file: Path
    subject: Subject
    id: int | str | None
    index: int | None
    kind: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return _on_one_line(f"{self.file}:{self._where()} {self.message}")

    def _where(self) -> str:
        if self.subject == "file":
            return ""
        if self.id is None:
            return f" {_PLURALS[self.subject]}[{self.index}] (no id):"
        return f" {self.subject} {self.id}:"


@dataclass(frozen=True)
class Exclusions:
    """Entries that training leaves out, by their place in the annotation file's lists."""

    images: frozenset[int] = frozenset()
    annotations: frozenset[int] = frozenset()


def exclusions(faults: Sequence[Fault], on_error: Literal["fail", "skip"]) -> Exclusions:
    """What to leave out so that no fault that matters is left.

    Raises:
        DataError: there are errors and ``on_error`` is ``fail``, or an error is not in a single image or
            annotation; the message has one line per kind of fault.
    """
    errors = [fault for fault in faults if fault.severity == "error"]
    single = all(fault.subject in ("image", "annotation") for fault in errors)
    if on_error == "fail":
        refuse_faults(errors, hint="or leave faulty entries out with data.on_error=skip" if single else "")
    refuse_faults([fault for fault in errors if fault.subject in ("file", "category")])
    return Exclusions(images=_indices(errors, "image"), annotations=_indices(errors, "annotation"))


def has_errors(faults: Sequence[Fault]) -> bool:
    """Whether training would refuse any of them."""
    return any(fault.severity == "error" for fault in faults)


def warnings_of(faults: Sequence[Fault], *, most: int = 5) -> list[str]:
    """What is lived with, in a few lines: equal ones share a line, and what comes after ``most`` is counted."""
    lines = grouped([fault for fault in faults if fault.severity == "warning"])
    more = [f"... and {len(lines) - most} more: dsctool data check lists them all"] if len(lines) > most else []
    return [*lines[:most], *more]


def refuse_faults(faults: Sequence[Fault], *, hint: str = "") -> None:
    """Raise ``DataError`` where there are errors, one line per kind of fault. hint: another way out."""
    errors = [fault for fault in faults if fault.severity == "error"]
    if not errors:
        return
    lines = grouped(errors)
    shown = lines[:_SHOWN]
    if len(lines) > _SHOWN:
        shown.append(f"... and {len(lines) - _SHOWN} more: dsctool data check lists them all")
    count = f"{len(errors)} faults in the data: mend them" if len(errors) > 1 else "1 fault in the data: mend it"
    raise DataError("\n".join([*shown, f"{count}, {hint}" if hint else count]))


def grouped(faults: Sequence[Fault]) -> list[str]:
    """One line per fault, in their order; equal ones of many entries share a line: ``22 x missing key 'id' (...)``."""
    equal: dict[tuple[object, ...], list[Fault]] = {}
    for fault in faults:
        equal.setdefault((fault.file, fault.subject, fault.message, fault.id is None), []).append(fault)
    return [line for alike in equal.values() for line in _lines(alike)]


def _lines(alike: Sequence[Fault]) -> list[str]:
    if len(alike) < MANY:
        return [str(fault) for fault in alike]
    first = alike[0]
    named = ", ".join(str(fault.index if fault.id is None else fault.id) for fault in alike[:_NAMED])
    what = f"{_PLURALS[first.subject]}{' without id, places' if first.id is None else ''}"
    return [_on_one_line(f"{first.file}: {len(alike)} x {first.message} ({what} {named}, ...)")]


def _indices(faults: Sequence[Fault], subject: Subject) -> frozenset[int]:
    return frozenset(fault.index for fault in faults if fault.subject == subject and fault.index is not None)


def _on_one_line(text: str) -> str:
    """Names from a file may hold line breaks and a terminal's commands: these are shown escaped, all else as it is."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in text
    )
