"""``dsctool data suggest``: a configuration fitted to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsctool.cli.options import CONFIG_HELP, Device, Overrides, shipped_names
from dsctool.cli.output import prepare_file


def suggest(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Root of a data set.")],
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME",
            help=f"Begin with this one. {CONFIG_HELP}  [default: htc_tiny on a CPU, htc_r50_fpn_1x_coco on a GPU]",
            autocompletion=shipped_names,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.yaml", help="Write it to a new file, not to the terminal.")
    ] = None,
    no_trial: Annotated[
        bool, typer.Option("--no-trial", help="Do not try how many images a step fit into this machine's memory.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Print a configuration that fits a data set, with the reason for each line.

    It sets the sides of images by the sizes of instances, anchors by their boxes, limits by the fullest image, images
    a step by this machine's memory (steps of one and of two images are tried, each in a process of its own), and the
    length by the number of images. KEY=VALUE is kept, and what follows from it.

    Examples:

        dsctool data suggest shapes --output mine.yaml

        dsctool train mine.yaml --data shapes --output runs/mine
    """
    from dsctool.engine.suggestion import suggest as suggested
    from dsctool.engine.suggestion import try_steps
    from dsctool.errors import ConfigError
    from dsctool.files import write_text

    if output is not None:
        if output.suffix.lower() not in (".yaml", ".yml"):
            raise typer.BadParameter(f"{output} does not end in .yaml", param_hint="--output")
        if output.exists():
            raise ConfigError(f"{output}: exists already; name a new file")
        prepare_file(output)
    if not no_trial:
        typer.echo("trying how many images a step fit into memory (--no-trial leaves this out)", err=True)
    found = suggested(root, config, overrides or (), device=device, measure=None if no_trial else try_steps)
    if output is None:
        typer.echo(found.yaml(), nl=False)
        return
    write_text(output, found.yaml())
    typer.echo(f"dsctool train {output} --data {root} --output RUN", err=True)
    typer.echo(output)
