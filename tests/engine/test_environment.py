"""Where a run takes place: what freed memory becomes."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest
import torch

from dsctool.engine.environment import keep_freed_memory

FAULTS = """
import resource
import torch
from dsctool.engine.environment import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory(torch.device("cpu"))
faults()
print(before, faults())
"""
"""Pages that are mapped anew for eight arrays of 40 MB, one after the other."""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")


@glibc
def test_freed_memory_is_used_again() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=plain)
    before, after = map(int, done.stdout.split())
    assert before > 4 * max(after, 1)  # where something small took the room of an array, one of eight is mapped anew


@glibc
def test_it_is_for_cpus_and_where_nobody_has_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: object) -> None:
        raise AssertionError("the allocator is left alone")

    monkeypatch.setattr(ctypes, "CDLL", refused)
    keep_freed_memory(torch.device("cuda"))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    keep_freed_memory(torch.device("cpu"))
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    with pytest.raises(AssertionError, match="left alone"):
        keep_freed_memory(torch.device("cpu"))
