"""What the large models leave behind."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator

import pytest

from tests.parity.published import forget_weights


@pytest.fixture(scope="package", autouse=True)
def memory_given_back() -> Iterator[None]:
    """Gigabytes that later tests do not need: to fork a process of them takes longer than what is tested with it."""
    yield
    forget_weights()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
