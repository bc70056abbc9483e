"""Faults of a data set, and what is left out because of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsctool.errors import DataError

Subject = Literal["file", "category", "image", "annotation"]
Severity = Literal["error", "warning"]

_SHOWN = 20

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
    severity: ``error``: training refuses it. ``warning``: training lives with it, by the published rules.
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
            annotation; the message has one line per fault.
    """
    errors = [fault for fault in faults if fault.severity == "error"]
    stopping = [fault for fault in errors if on_error == "fail" or fault.subject in ("file", "category")]
    if stopping:
        raise DataError(_refusal(stopping, skipping=on_error == "skip"))
    return Exclusions(images=_indices(errors, "image"), annotations=_indices(errors, "annotation"))


def _indices(faults: Sequence[Fault], subject: Subject) -> frozenset[int]:
    return frozenset(fault.index for fault in faults if fault.subject == subject and fault.index is not None)


def _refusal(faults: Sequence[Fault], *, skipping: bool) -> str:
    lines = [str(fault) for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        lines.append(f"... and {len(faults) - _SHOWN} more: dsctool data check lists them all")
    count = f"{len(faults)} faults in the data: mend them" if len(faults) > 1 else "1 fault in the data: mend it"
    skippable = not skipping and all(fault.subject in ("image", "annotation") for fault in faults)
    lines.append(f"{count}, or leave faulty entries out with data.on_error=skip" if skippable else count)
    return "\n".join(lines)


def _on_one_line(text: str) -> str:
    """Names from a file may hold line breaks and a terminal's commands: these are shown escaped, all else as it is."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in text
    )
