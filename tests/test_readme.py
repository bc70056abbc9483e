"""What the README tells people to type exists, and the numbers behind it are those that the package has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dsctool.cli.app import load_command
from dsctool.config.loading import load_config
from dsctool.config.names import shipped_paths
from dsctool.config.published import PUBLISHED

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```bash[^\n]*\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("dsctool ")]
ROWS = [line for line in LINES if "--weights" in line and re.search(r"# [\d./ ]+$", line)]
AUTHORS = {"detectors_htc_r50_mstrain_40e_coco", "detectors_htc_x101_32x4d_mstrain_40e_coco"}
"""Rows of the DetectoRS authors' two files of mmdet 1.x."""


@pytest.mark.parametrize("line", LINES)
def test_commands_are_understood(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    command = load_command(name)
    if hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with command.make_context(name, words) as context:
        assert context.params


@pytest.mark.parametrize("line", ROWS)
def test_rows_name_configurations_and_what_is_published_of_them(line: str) -> None:
    words, _, said = line.partition("#")
    _, _, name, *rest = shlex.split(words)
    if name in AUTHORS - shipped_paths().keys():
        pytest.skip(f"{name} is not shipped yet")
    load_config(name, [word for word in rest if "=" in word])
    row = PUBLISHED.get(name)
    file = rest[rest.index("--weights") + 1].removesuffix(".pth")
    if row is None or file != row.file.split("/")[-1].removesuffix(".pth") or "--test-dev" in rest:
        return
    numbers = [number for number in (row.box, row.mask) if number is not None]
    assert [float(number) for number in said.split("/")] == numbers


def test_every_published_row_is_there() -> None:
    files = {row.file.split("/")[-1].removesuffix(".pth") for row in PUBLISHED.values()}
    assert {file for file in files if not any(f" {file}.pth " in line for line in ROWS)} == set()
