"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsctool.errors import DataError
from dsctool.files import room_for


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its name when the block ends without an error, and else is gone.

    Raises:
        DataError: ``output`` is a file, or a folder that is not empty, or cannot be written.
        DiskFullError: there is no room.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"{output}: is there already; name a new folder")
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        with room_for(output.parent / output.name):
            yield partial
        partial.replace(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def bring(source: Path, target: Path, *, link: bool, data: bytes | None = None) -> None:
    """A copy of a file, or (link) a second name for it, or a file of ``data``; folders are made.

    Raises:
        DataError: it cannot be linked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        target.write_bytes(data)
        return
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise DataError(f"{target}: cannot be linked to {source}: {error.strerror}; leave out --link to copy") from None
