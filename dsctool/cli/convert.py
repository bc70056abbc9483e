"""``dsctool convert``: published checkpoints to this project's, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import CONFIG_HELP, shipped_names
from dsctool.cli.output import keep_apart, prepare_file

if TYPE_CHECKING:
    from dsctool.config.schema import Config


class Target(StrEnum):
    """Whose file is written."""

    DSCTOOL = "dsctool"
    MMDET = "mmdet"


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A published .pth file; with --to mmdet a best.pt.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME",
            help=f"Which model it is, where the file does not say. {CONFIG_HELP}",
            autocompletion=shipped_names,
        ),
    ] = None,
    to: Annotated[Target, typer.Option("--to", help="Whose file to write.")] = Target.DSCTOOL,
) -> None:
    """Turn a published checkpoint into one of dsctool, or back.

    Reads files of mmdet 1.x, 2.x and 3.x with Cascade (Mask) R-CNN, HTC, DetectoRS, DSC and F-DSC, those of the
    DetectoRS and DSC authors among them; never runs code in them. Says what it found: the layout, the configuration,
    the classes, and whether the file still has the hash in its name. All weights must fit: nothing missing, nothing
    left over. predict, eval and the others also take such files directly where no --config is needed.

    --to mmdet writes one back, with identical weights, under the names of mmdet 2.x and 3.x.

    Examples:

        dsctool convert detectors_htc_r50_1x_coco-329b1453.pth --output detectors.pt

        dsctool convert f_dsc_r50.pth --config fast_dsc_r50_fpn_1x_coco --output f_dsc.pt

        dsctool convert runs/first/best.pt --to mmdet --output first.pth
    """
    keep_apart([output], [source])
    prepare_file(output)
    if to is Target.MMDET:
        _write_back(source, output, config)
        return
    from dsctool.errors import CheckpointError
    from dsctool.interop.checkpoint import as_checkpoint, is_own, save_checkpoint
    from dsctool.interop.conversion import convert as convert_content
    from dsctool.interop.loading import read_tensors

    content = read_tensors(source)
    if is_own(content):
        raise CheckpointError(f"{source}: is a dsctool checkpoint already; --to mmdet writes it for mmdet.")
    conversion = convert_content(content, source, config=config)
    save_checkpoint(output, as_checkpoint(conversion))
    for line in conversion.account:
        typer.echo(line)
    typer.echo(output)


def _write_back(source: Path, output: Path, config: str | None) -> None:
    import torch

    from dsctool.files import whole_file
    from dsctool.interop.checkpoint import load_checkpoint
    from dsctool.interop.conversion import as_published

    if config is not None:
        raise typer.BadParameter("--config is for published files: a dsctool checkpoint has its own")
    checkpoint = load_checkpoint(source)
    published = as_published(checkpoint.categories, checkpoint.model)
    with whole_file(output) as file:
        torch.save(published, file)
    typer.echo(f"{len(published['state_dict'])} tensors by the names of mmdet 2.x and 3.x")
    if (pictures := _other_pictures(checkpoint.config)) is not None:
        typer.echo(f"mmdet's configuration must say how pictures become these channels: {pictures}")
    typer.echo(output)


def _other_pictures(config: Config) -> str | None:
    """What weights do not say of how pictures are read, where it is not red, green and blue of 8 bits."""
    from dsctool.data.bands import Channels

    data = config.data
    if Channels.of(data).plain:
        return None
    values = {
        "model.backbone.in_channels": config.model.backbone.in_channels,
        "data.channels": data.channels,
        "data.image_range": data.image_range,
        "data.page": data.page,
        "data.mean": data.mean,
        "data.std": data.std,
    }
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items() if value is not None)
