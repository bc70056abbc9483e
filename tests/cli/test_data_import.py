"""``dsctool data import`` and ``export`` as commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.cli.data_import import ExportKind, ImportKind
from dsctool.data.exporting.sets import WRITERS as EXPORTS
from dsctool.data.importing.importer import READERS
from tests.data.importing.foreign import label_images, things, yolo


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def test_the_kinds_are_those_that_there_are() -> None:
    assert list(ImportKind) == list(READERS)
    assert list(ExportKind) == list(EXPORTS)


def test_masks_to_a_checked_set_and_out_again(tmp_path: Path) -> None:
    label_images(tmp_path / "in", things(overlaps=False))
    command = ["import", "label-images", tmp_path / "in", "--output", tmp_path / "set", "--val", 0.4, "--seed", 3]
    refused = run(*command, "--group-by", "folder")
    assert refused.exit_code == 1
    assert "one group of 5 pictures, images: nothing is left for validation" in refused.stderr
    assert not (tmp_path / "set").exists()
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        f"{tmp_path / 'set'}: train 3 images with 15 instances, val 2 images with 10 instances; classes: cell, debris\n"
    )
    assert run("check", tmp_path / "set").exit_code == 0
    again = run(*command)
    assert again.exit_code == 1
    assert "set: is there already; name a new folder" in again.stderr
    assert run("export", "label-images", tmp_path / "set", "--output", tmp_path / "out").exit_code == 0
    done = run("export", "yolo", tmp_path / "set", "--output", tmp_path / "yolo", "--simplify", 0)
    assert done.stdout == f"{tmp_path / 'yolo'}: 5 images with 25 instances\n"


@pytest.mark.parametrize(
    "command", [["data", "check"], ["data", "stats"], ["train", "htc_tiny", "--dry-run", "--data"]]
)
def test_a_folder_of_another_layout_is_told_its_importer(command: list[str], tmp_path: Path) -> None:
    yolo(tmp_path, things(overlaps=False))
    words = [*command, str(tmp_path)]
    done = CliRunner().invoke(app, words + (["--output", str(tmp_path / "run")] if command[0] == "train" else []))
    assert done.exit_code == 1
    hint = f"it looks like YOLO segmentation: dsctool data import yolo {tmp_path} --output NEW"
    assert hint in done.output.replace("\n", "")
