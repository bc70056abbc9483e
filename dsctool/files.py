"""Reading JSON with plain errors, and writing files that are either whole or absent."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsctool.errors import DataError


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
            raise DataError(f"{path}: is not UTF-8 text") from None
    return data.removeprefix(codecs.BOM_UTF8)


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
        raise DataError(f"{path}: is not valid JSON at {where}: {error.msg} (was the file cut short?)") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not usable JSON: {error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes its name only when the block ends without an error.

    It is written under a temporary name in the same folder, flushed to disk and renamed over ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())
