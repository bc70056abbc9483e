"""What memory there is, read from made-up systems, and a limit that turns a shortage into an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from dsctool.engine.memory import available_bytes, within
from dsctool.errors import OutOfMemoryError, memory_for

CPU = torch.device("cpu")
MACHINE = {"proc/meminfo": "MemTotal:       2000 kB\nMemAvailable:   1000 kB\n"}
SECOND = {
    "sys/fs/cgroup/memory.max": "900000\n",
    "sys/fs/cgroup/memory.current": "800000\n",
    "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 300000\n",
}
FIRST = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000\n",
    "sys/fs/cgroup/memory/memory.stat": "inactive_file 9\ntotal_inactive_file 200000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MACHINE, 1024000),
        ({**MACHINE, **SECOND}, 400000),
        ({**MACHINE, **SECOND, "sys/fs/cgroup/memory.max": "max\n"}, 1024000),
        ({**MACHINE, **FIRST}, 100000),
        ({**MACHINE, **FIRST, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 1024000),
    ],
    ids=["unknown", "machine", "group", "group without a limit", "old group", "old group without a limit"],
)
def test_what_is_available(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(CPU, root=tmp_path) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_more_than_available_is_an_error_and_less_is_not() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with within(300 * 2**20, CPU):
        torch.empty(100 * 2**20, dtype=torch.uint8)
        with pytest.raises(OutOfMemoryError, match=r"out of memory \(0.49 GiB more"), memory_for("trying", remedy=""):
            torch.empty(500 * 2**20, dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with within(None, CPU):
        torch.empty(500 * 2**20, dtype=torch.uint8)
