"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their pictures, which take longer than all else."""
    for page in ("errors", "huddle"):
        monkeypatch.setattr(f"dsctool.visualize.pages.{page}.files.save_figures", lambda folder, figures: None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As forked processes need it, and for the same bytes in all runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
