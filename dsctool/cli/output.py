"""Files that commands write, and progress that they show."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from dsctool.errors import DsctoolError

_PLAIN_INTERVAL = 30.0
"""Seconds between plain progress lines."""


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
def image_progress(total: int, task: str) -> Iterator[Callable[[], None]]:
    """Call what it gives after each of ``total`` images: a bar with the time left on a terminal, else a few lines."""
    if not sys.stderr.isatty():
        yield _plain_progress(total, task)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        identity = bar.add_task(task, total=total)
        yield lambda: bar.advance(identity)


def _plain_progress(total: int, task: str) -> Callable[[], None]:
    started = said = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, said
        done += 1
        now = time.monotonic()
        if now - said >= _PLAIN_INTERVAL:
            said = now
            left = (now - started) / done * (total - done)
            typer.echo(f"{task}: {done}/{total} images, {left:.0f} s left", err=True)

    return advance
