"""What is said of a loader process that was lost."""

from __future__ import annotations

import signal

import pytest

from dsctool.data.workers import Lost


@pytest.mark.parametrize(
    ("exitcode", "said"),
    [
        (-signal.SIGKILL, "was killed (SIGKILL, as the system does when memory runs out)"),
        (-signal.SIGBUS, "was killed (SIGBUS, as the system does when /dev/shm is full (docker run --shm-size gives "),
        (-signal.SIGSEGV, "was killed (SIGSEGV)"),
        (3, "ended with exit code 3"),
    ],
)
def test_its_end_in_words(exitcode: int, said: str) -> None:
    assert Lost(exitcode, [0]).cause.startswith(said)
