"""Arguments and options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def shipped_names(incomplete: str) -> list[str]:
    """The shipped configurations whose names begin so, for the shell's completion."""
    from dsctool.config.names import shipped_paths

    return [name for name in shipped_paths() if name.startswith(incomplete)]


CHECKPOINT_HELP = "A best.pt or last.pt that dsctool train wrote."
CONFIG_HELP = "Name of a shipped configuration, or a YAML file."
ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help=CONFIG_HELP, autocompletion=shipped_names)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values to change, as in optim.lr=0.01 model.neck.rfp=null"),
]
DataRoot = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data set: annotations/, one folder per split, or as configured.")
]
KEEP_CANDIDATES = "postprocess.keep_candidates=1000"
"""The override for what is written of the boxes before NMS, per image."""
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto (CUDA, else cpu), cpu, cuda, cuda:N or mps.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result to a JSON file.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
