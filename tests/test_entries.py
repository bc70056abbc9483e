"""Lists of JSON files, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsctool.entries import Entries, read_list, read_lists
from dsctool.errors import DataError


@pytest.mark.parametrize("text", ['[{"a": 1}, [2], "x", null]', '[{"a": NaN}, {"b": "\\ud800"}]', "[]"])
def test_entries_are_what_json_says(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    content = read_list(path)
    assert isinstance(content, list)
    entries = Entries(content)
    assert repr([*entries]) == repr(json.loads(text))
    assert repr([entries[index] for index in range(len(entries))]) == repr(json.loads(text))
    assert repr([*entries[1:]]) == repr(json.loads(text)[1:])


def test_lists_by_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ('{"a": [1, {}], "b": 5, "c": []}', '{"a": [1, NaN], "b": 5, "c": []}', "\ufeff" + '{"a": [1]}'):
        path.write_text(text)
        content = read_lists(path, ("a", "b"))
        assert isinstance(content, dict)
        whole = json.loads(text.lstrip("\ufeff"))
        assert repr([*Entries(content["a"])]) == repr(whole["a"])
        assert content.get("b") == whole.get("b")


@pytest.mark.parametrize("text", ["", "[1", "{}", "5", '{"a": 1'])
def test_what_is_no_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    if text in ("{}", "5"):
        assert read_list(path) == json.loads(text)
    else:
        with pytest.raises(DataError, match=r"a\.json"):
            read_list(path)
