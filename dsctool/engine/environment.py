"""Where a run took place: versions, device, command line."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import torch
import torchvision


def environment(device: torch.device) -> dict[str, str | int | list[str]]:
    """What to know when a run is to be repeated elsewhere."""
    return {
        "dsctool": version("dsctool"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; anything else is a device name of torch."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(device: torch.device) -> str:
    """``device`` with the name of the GPU, if it is one."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
