"""Files that commands write, and progress that they show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.checks import Progress


def prepare_file(path: Path | None) -> None:
    """Make the folder of a file that will be written, so that a wrong path fails now and not hours later."""
    if path is None:
        return
    if path.is_dir():
        raise DsctoolError(f"{path}: is a folder; give a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: object, *, indent: int | None = None) -> None:
    """Write ``content``, whole or not at all."""
    from dsctool.files import write_text

    write_text(path, json.dumps(content, indent=indent) + "\n")


@contextmanager
def counting() -> Iterator[Progress]:
    """Progress of counted work on standard error: a bar on a terminal, else a line now and then."""
    from rich.console import Console

    from dsctool.engine.progress import counting as shown

    with shown(Console(stderr=True)) as progress:
        yield progress


@contextmanager
def image_progress(total: int, task: str) -> Iterator[Callable[[], None]]:
    """:func:`counting` of ``total`` images: call what it gives after each."""
    done = 0
    with counting() as progress:

        def advance() -> None:
            nonlocal done
            done += 1
            progress(task, done, total)

        yield advance
