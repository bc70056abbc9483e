"""Detectors whose weights are written over, or do not matter: to draw them takes most of the time to build one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor


@contextmanager
def undrawn_weights() -> Iterator[None]:
    """What would be drawn at random stays as it is in memory."""
    with pytest.MonkeyPatch.context() as patch:
        for method in ("normal_", "uniform_"):
            patch.setattr(Tensor, method, lambda tensor, *_, **__: tensor)
        yield
