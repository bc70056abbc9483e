"""A file is whole or it is not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from dsctool.errors import DataError, DiskFullError
from dsctool.files import keep_as, read_json, whole_file, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_text(path, "old")

    def fail_halfway() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_name_without_room_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, name = tmp_path / "a.jpg", tmp_path / "b.jpg"
    path.write_bytes(b"content")

    def fail(*names: Path) -> NoReturn:
        raise OSError(errno.EXDEV, "another disk")

    def full(source: Path, target: Path) -> NoReturn:
        target.write_bytes(b"con")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr("dsctool.files.shutil.copyfile", full)
    with pytest.raises(DiskFullError, match=r"b\.jpg: the disk is full"):
        keep_as(path, name)
    assert list(tmp_path.iterdir()) == [path]


def test_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b" \n", "is empty"),
        (b'{"a": [1,', r"is not valid JSON at line 1 column 10: .*cut short"),
        (b"\xff\xfe{\0}\0", "is not UTF-8 text: it is UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08\0\xe9", "is not UTF-8 text: it is packed"),
        (b'{"name": "caf\xe9"}', "is not UTF-8 text$"),
        (b"{}\n{}\n", "is not valid JSON at line 2 column 1: .*several values, one a line"),
        (b"[" * 100_000, "is not usable JSON"),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"a\\.json: {said}") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]
