"""``dsctool data suggest``: what it prints trains."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from tests.models.tiny import NARROW


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_is_suggested_trains(synthetic_root: Path, tmp_path: Path) -> None:
    """As it is, but for a network and images small enough for a test."""
    file, device = tmp_path / "new" / "mine.yaml", ("--device", "cpu")
    printed = run("data", "suggest", synthetic_root, "--no-trial", *device)
    assert printed.exit_code == 0, printed.output
    written = run("data", "suggest", synthetic_root, "--no-trial", "--output", file, *device)
    assert (written.exit_code, written.stdout) == (0, f"{file}\n")
    assert file.read_text() == printed.stdout
    assert f"dsctool train {file} --data {synthetic_root}" in written.stderr
    small = ["data.train_resize.short_sides=[64]", "data.test_resize.short_sides=[64]", "train.batch_size=1"]
    rehearsed = run("train", file, *NARROW, *small, "data.workers=0", "--data", synthetic_root, "--dry-run", *device)
    assert rehearsed.exit_code == 0, rehearsed.output
    assert "8 images" in rehearsed.stdout
    again = run("data", "suggest", synthetic_root, "--no-trial", "--output", file)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)
    assert run("data", "suggest", synthetic_root, "--output", "mine.txt").exit_code == 2
