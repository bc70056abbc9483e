"""Reading JSON with plain errors, and writing files that are either whole or absent."""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from dsctool.errors import DataError, DiskFullError

if sys.platform != "win32":
    import fcntl


def read_bytes(path: Path) -> bytes:
    """What a file of UTF-8 text holds, without a mark of byte order.

    Raises:
        DataError: the file cannot be read, or is no UTF-8; the message begins with its path.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            kind = next((f": {kind}" for signs, kind in _OTHER_FILES if data.startswith(signs)), "")
            raise DataError(f"{path}: is not UTF-8 text{kind}") from None
    return data.removeprefix(codecs.BOM_UTF8)


_OTHER_FILES: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "it is UTF-16: save it as UTF-8"),
    ((b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), "it is packed: unpack it"),
)
"""How files begin that are taken for UTF-8, and what they are."""


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        DataError: the file is missing, empty, cut, or no JSON; the message begins with its path.
    """
    text = read_bytes(path).decode()
    if not text.strip():
        raise DataError(f"{path}: is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        several = error.msg == "Extra data" and error.colno == 1
        hint = "it holds several values, one a line: make them one list" if several else "was the file cut short?"
        raise DataError(f"{path}: is not valid JSON at {where}: {error.msg} ({hint})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not usable JSON: {error}") from None


@contextmanager
def whole_file(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes its name only when the block ends without an error.

    It is written under a temporary name in the same folder, flushed to disk and renamed over ``path``.

    size: about how many bytes it will have, where that is known.

    Raises:
        DiskFullError: there is no room for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path, size), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path, size: int | None = None) -> Iterator[None]:
    """Raises DiskFullError when the disk is full in the block, which writes to ``path``; size: as for whole files."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter are torch's, when a file takes no more
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = "" if size is None else f": {size / 2**20:.1f} MiB are needed"
        free = shutil.disk_usage(path.parent).free
        raise DiskFullError(f"{path}: the disk is full{needed}; {free / 2**20:.1f} MiB are free.") from error


def lock(file: IO[bytes]) -> bool:
    """Whether this process has the file for itself until it closes it; no other one gets it then.

    Where the system or the disk knows no such thing, it is for everybody.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def keep_as(path: Path, name: Path) -> None:
    """Give the file ``path`` a second name, in place of whatever has it: both names are there at any time.

    Raises:
        DiskFullError: links cannot be, and there is no room for a copy.
    """
    temporary = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    try:
        with room_for(name):
            try:
                os.link(path, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(path, temporary)
            temporary.replace(name)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what processes that were killed left of files of these names in ``folder`` and below."""
    for name in names:
        for path in folder.glob(f"**/.{name}.*.tmp"):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())
