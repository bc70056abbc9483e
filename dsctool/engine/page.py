"""What a run may show of itself while it goes on, made by whoever can draw."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from dsctool.evaluation.comparison import Comparison


class Page(Protocol):
    """A page about a run, in the run's folder. Both are called by the first of a run's processes only."""

    def draw(self, folder: Path, comparison: Comparison, images: Path, *, step: int) -> None:
        """Keep pictures of what an evaluation after ``step`` steps found in ``images``, the folder of its images."""

    def write(self, folder: Path) -> None:
        """Write the page from what is in the folder, whole or not at all."""


class NoPage:
    """For programs that need none."""

    def draw(self, folder: Path, comparison: Comparison, images: Path, *, step: int) -> None:
        pass

    def write(self, folder: Path) -> None:
        pass


NO_PAGE = NoPage()
