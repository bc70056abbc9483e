"""Files that commands write, and progress that they show."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.structures import Progress


def prepare_file(path: Path | None) -> None:
    """Make the folder of a file that will be written, so that a wrong path fails now and not hours later."""
    if path is None:
        return
    if path.is_dir():
        raise DsctoolError(f"{path}: is a folder; give a file to write")
    prepare_folder(path.parent)


def prepare_folder(path: Path) -> None:
    """Make a folder that files will be written to, and make sure that they can be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = "is a file; name a folder" if path.is_file() else f"cannot be made: {error.strerror}"
        raise DsctoolError(f"{path}: {problem}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DsctoolError(f"{path}: files cannot be written to this folder; name another, or change its permissions")


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
