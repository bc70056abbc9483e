"""Where a run takes place: what freed memory becomes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from dsctool.engine.environment import keep_freed_memory

{call}
for _ in range(3):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str, **environment: str) -> int:
    """Pages that are mapped anew for twenty arrays of 40 MB, one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)],
        capture_output=True, text=True, check=True, env=os.environ | environment,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again() -> None:
    keep = "keep_freed_memory(torch.device('cpu'))"
    pages = 20 * 40_000_000 // os.sysconf("SC_PAGESIZE")
    own = {"MALLOC_ARENA_MAX": "8"}  # changes nothing here
    kept = faults(keep)
    assert kept < pages / 100
    assert faults(keep, **own) > 20 * max(kept, 1), "the rules in the environment stand"
    assert faults("keep_freed_memory(torch.device('meta'))") > 20 * max(kept, 1)
