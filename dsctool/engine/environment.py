"""Where a run takes place: devices, versions, command line."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import dsctool
from dsctool.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``."""


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU.

    Raises ConfigError when torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason} `dsctool info` lists the devices.") from error
    return device


def describe(device: torch.device) -> str:
    """``device``, with the name of the GPU if it is one."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def peak_memory(device: torch.device) -> str:
    """The most memory used so far, in words: of the GPU, else of this process."""
    if device.type == "cuda":
        return f"{peak_bytes(device) / 2**30:.2f} GiB on the GPU"
    if sys.platform == "win32":
        return "unknown on this platform"
    return f"{peak_bytes(device) / 2**30:.2f} GiB in this process"


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU, else of this process (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    status = Path("/proc/self/status")
    if status.exists():  # Linux also counts the program that started this one in what getrusage gives
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory(device: torch.device) -> None:
    """Have glibc keep freed memory for what comes next, for a process that only runs a model on a CPU.

    Every layer's maps are tens of megabytes. By its own rules glibc gives them back to the system when they are freed,
    and the next layer's pages are mapped and cleared anew: a fifth of the time. What was needed once stays with the
    process until it ends. Whoever has set ``MALLOC_...`` in the environment has rules of their own.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)


def environment(device: torch.device) -> dict[str, str | list[str]]:
    """What to know when a run is to be repeated elsewhere."""
    return {
        "dsctool": dsctool.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "platform": platform.platform(),
        "device": describe(device),
        "command": sys.argv,
    }
