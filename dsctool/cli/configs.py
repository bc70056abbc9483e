"""``dsctool configs``: list, show, compare and check configurations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import CONFIG_HELP, ConfigName, JsonFile, Overrides, shipped_names
from dsctool.cli.output import beside, prepare_file, write_json
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.config.dump import Difference

Left = Annotated[str, typer.Argument(metavar="LEFT", help=CONFIG_HELP, autocompletion=shipped_names)]
Right = Annotated[str, typer.Argument(metavar="RIGHT", help=CONFIG_HELP, autocompletion=shipped_names)]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, show, compare and check configurations.")


@app.command("list")
def list_(
    published: Annotated[
        bool, typer.Option("--published", help="Those with published weights: their AP on COCO and files.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """List the shipped configurations.

    Examples:

        dsctool configs list

        dsctool configs list --published
    """
    from dsctool.config.names import list_configs

    if published:
        _list_published(json_file)
        return
    configs = list_configs()
    _write(json_file, [{"name": each.name, "family": each.family, "description": each.description} for each in configs])
    with beside(json_file):
        print_table(["name", "description"], [[config.name, config.description] for config in configs])


@app.command("grids")
def grids(json_file: JsonFile = None) -> None:
    """List the shipped grids of ablations, for dsctool ablate.

    Example:

        dsctool configs grids
    """
    from dsctool.config.grid import grid_names, load_grid

    found = [load_grid(name) for name in grid_names()]
    as_json = [
        {"name": grid.name, "description": grid.description, "rows": {row.name: row.title for row in grid.rows}}
        for grid in found
    ]
    _write(json_file, as_json)
    with beside(json_file):
        rows = [[grid.name, ", ".join(row.name for row in grid.rows), grid.description] for grid in found]
        print_table(["name", "rows", "description"], rows)


def _list_published(json_file: Path | None) -> None:
    from dsctool.config.loading import load_config
    from dsctool.config.published import PUBLISHED

    epochs = {name: load_config(name).train.epochs for name in PUBLISHED}
    rows = [{"name": name, "epochs": epochs[name], **row._asdict()} for name, row in PUBLISHED.items()]
    _write(json_file, rows)
    with beside(json_file):
        header = ["name", "box AP", "mask AP", "split", "epochs", "GB", "by", "file"]
        table = [
            [
                name,
                f"{row.box:.1f}",
                _number(row.mask),
                row.split,
                str(epochs[name]),
                _number(row.memory),
                row.by,
                row.file_name,
            ]
            for name, row in PUBLISHED.items()
        ]
        print_table(header, table)
        typer.echo(
            "AP on COCO, one scale, no flip. GB: of training, a GPU. Of the others no published file is known by name."
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


@app.command()
def show(
    config: ConfigName,
    overrides: Overrides = None,
    plain: Annotated[bool, typer.Option("--plain", help="Without the origins: a file that can be loaded.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Show a whole configuration and who set what.

    Every value is there, defaults too, with the file and line or the override that set it.

    Example:

        dsctool configs show htc_r50_fpn_1x_coco optim.lr=0.01
    """
    from dsctool.config.dump import annotated_yaml, config_to_yaml
    from dsctool.config.loading import resolve_config
    from dsctool.config.published import PUBLISHED

    resolved = resolve_config(config, overrides or ())
    values = resolved.config.model_dump(mode="json")
    _write(json_file, {"config": values, "provenance": resolved.provenance})
    with beside(json_file):
        if plain:
            typer.echo(config_to_yaml(resolved.config), nl=False)
        else:
            if (row := PUBLISHED.get(config)) is not None:
                masks = "" if row.mask is None else f", mask {row.mask}"
                typer.echo(f"# published by {row.by}: box {row.box}{masks} AP on COCO {row.split}; weights: {row.file}")
            _print_yaml(annotated_yaml(resolved))


@app.command()
def diff(left: Left, right: Right, json_file: JsonFile = None) -> None:
    """Compare two configurations value by value.

    Example:

        dsctool configs diff htc_r50_fpn_1x_coco runs/first/config.yaml
    """
    from dsctool.config.dump import diff_configs
    from dsctool.config.loading import load_config

    differences = diff_configs(load_config(left), load_config(right))
    table = [(each.key, _sides(each)) for each in differences]
    _write(json_file, [{"key": key, **sides} for key, sides in table])
    with beside(json_file):
        if differences:
            cells = [[key, *(_cell(sides, side) for side in ("left", "right"))] for key, sides in table]
            print_table(["key", left, right], cells)
        else:
            typer.echo("no difference")


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML files, or names of shipped ones.")],
) -> None:
    """Check files and name every problem.

    Each problem is told with its file and line; the exit code is 1 where there is one.

    Example:

        dsctool configs validate mine.yaml
    """
    from dsctool.config.loading import load_config
    from dsctool.errors import ConfigError

    failed = False
    for file in files:
        try:
            load_config(file)
        except ConfigError as error:
            failed = True
            typer.echo(f"dsctool: error: {error}", err=True)
        else:
            typer.echo(f"{file}: ok")
    if failed:
        raise typer.Exit(1)


def _write(json_file: Path | None, content: object) -> None:
    if json_file is not None:
        prepare_file(json_file)
        write_json(json_file, content, indent=2)


def _sides(difference: Difference) -> dict[str, object]:
    """``left`` and ``right``, without the side that has no such key."""
    from dsctool.config.dump import Absent

    sides = {"left": difference.left, "right": difference.right}
    return {side: value for side, value in sides.items() if value is not Absent.ABSENT}


def _cell(sides: dict[str, object], side: str) -> str:
    from dsctool.config.problems import show_value

    return show_value(sides[side]) if side in sides else "-"


def _print_yaml(text: str) -> None:
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))
