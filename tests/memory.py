"""How much memory something takes at its peak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

_PROCESS = Path("/proc/self")


def peak_bytes(action: Callable[[], object]) -> int:
    """Resident bytes that this process takes at most while ``action`` runs, above what it has before."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak so far is forgotten
    except OSError:
        pytest.skip("this system does not measure peaks of memory")
    before = _kilobytes("VmRSS")
    action()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
