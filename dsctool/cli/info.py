"""``dsctool info``: what to paste into a bug report."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from dsctool.cli.options import JsonFile
from dsctool.cli.output import beside, prepare_file, write_json

Facts = dict[str, str]

PACKAGES = ("torch", "torchvision", "pycocotools", "pydantic", "ruamel.yaml", "typer", "rich", "matplotlib", "numpy")


def info(json_file: JsonFile = None) -> None:
    """Show versions, devices and backends: what to paste into a bug report.

    Example:

        dsctool info
    """
    prepare_file(json_file)
    sections = {"versions": _versions(), "devices": _devices(), "backends": _backends()}
    if json_file is not None:
        write_json(json_file, sections, indent=2)
    with beside(json_file):
        _show(sections)


def _show(sections: dict[str, Facts]) -> None:
    width = max(len(name) for facts in sections.values() for name in facts)
    for number, (title, facts) in enumerate(sections.items()):
        typer.echo(f"{'' if number == 0 else chr(10)}{title}")
        for name, value in facts.items():
            typer.echo(f"  {name:<{width}}  {value}")


def _versions() -> Facts:
    import dsctool

    own = {
        "dsctool": f"{dsctool.__version__} ({Path(dsctool.__file__).parent})",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }
    return own | {name: _version(name) for name in PACKAGES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> Facts:
    try:
        import torch
    except ImportError as error:
        return {"torch": _why_not(error)}
    facts = {"cpu": f"{os.cpu_count()} logical cores, {torch.get_num_threads()} threads in use"}
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{card.name}, {card.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        facts["cuda"] = f"none ({built})"
    facts["mps"] = "available" if torch.backends.mps.is_available() else "none"
    return facts


def _backends() -> Facts:
    """Whether the parts that can fail by themselves import, and why they don't."""
    return {
        "torchvision ops": _importable("torchvision.ops"),
        "mmcv.ops (optional)": _importable("mmcv.ops", version_of="mmcv"),
        "pycocotools masks": _importable("pycocotools.mask"),
        "tensorboard (optional)": _importable("torch.utils.tensorboard"),
        "wandb (optional)": _importable("wandb"),
    }


def _importable(module: str, *, version_of: str | None = None) -> str:
    try:
        import_module(module)
        return "ok" if version_of is None else f"ok, {version_of} {import_module(version_of).__version__}"
    except Exception as error:  # a broken binary package can raise anything, and this command is to say what
        return _why_not(error)


def _why_not(error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"not available: {type(error).__name__}: {reason}"
