"""Where a run takes place: devices, versions, command line."""

from __future__ import annotations

import platform
import sys

import torch
import torchvision

import dsctool
from dsctool.errors import ConfigError


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
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the GPU"
    if sys.platform == "win32":
        return "unknown on this platform"
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB in this process"


def environment(device: torch.device) -> dict[str, str | list[str]]:
    """What to know when a run is to be repeated elsewhere."""
    return {
        "dsctool": dsctool.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "device": describe(device),
        "command": sys.argv,
    }
