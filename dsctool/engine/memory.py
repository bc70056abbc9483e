"""How much memory there is for a run, and no more than that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dsctool.errors import OutOfMemoryError

_NO_ROOM = "could not create a primitive"
"""What oneDNN says where it gets no memory, and goes on to say in this process when it could have some."""
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Of a control group, versions 2 and 1: its limit, what it uses, and what of that can be had back."""


def available_bytes(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """What a process that starts now can have: of the GPU, else of this machine or its container; None: unknown.

    root: of the file system that says so, on Linux.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_line(root / "proc/meminfo", "MemAvailable:", unit=1024), *(_left(root, *group) for group in _GROUPS)]
    return min((amount for amount in found if amount is not None), default=None)


def _left(root: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What a control group has left."""
    folder = root / "sys/fs/cgroup"
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return None
    back = _line((folder / limit).parent / "memory.stat", f"{reclaimable} ", unit=1) or 0
    return max(0, most - used + back)


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def _line(path: Path, name: str, *, unit: int) -> int | None:
    """The number after ``name``, in bytes."""
    lines = path.read_text().splitlines() if path.exists() else []
    return next((unit * int(line.split()[1]) for line in lines if line.startswith(name)), None)


@contextmanager
def within(available: int | None, device: torch.device) -> Iterator[None]:
    """Inside, this process gets ``available`` bytes more than it has, and then an error.

    A GPU sees to that itself. Linux promises more than there is, and kills who takes it at its word.
    """
    if device.type != "cpu" or sys.platform != "linux" or available is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    has = _line(Path("/proc/self/status"), "VmData:", unit=1024) or 0
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([has + available, *limits]), hard))
    try:
        yield
    except RuntimeError as error:
        if _NO_ROOM not in str(error):
            raise
        raise OutOfMemoryError(
            f"out of memory: oneDNN {_NO_ROOM}. Lower train.batch_size or data.train_resize."
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
