"""The command line: subcommands are imported when they are called, so that ``--help`` answers at once.

Exit codes: 0 success, 1 failure, 2 wrong usage, 75 stopped and saved (train), 130 interrupted.
Errors are plain lines on stderr.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

import dsctool
from dsctool.errors import DsctoolError, SaidElsewhereError, memory_shortage


class Command(NamedTuple):
    """Where a subcommand lives (a function or a :class:`typer.Typer`), and its line in the overview."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Command("demo", "demo", "Everything once, on scenes made for it: starts here."),
    "train": Command("train", "train", "Train a detector."),
    "runs": Command("runs", "runs", "List training runs: what differs, how good, how far."),
    "eval": Command("evaluate", "evaluate", "Measure box and mask AP as COCO counts them."),
    "predict": Command("predict", "predict", "Find instances in images: COCO results and overlays."),
    "huddle-report": Command("huddle_report", "huddle_report", "Measure AP where instances crowd and overlap."),
    "visualize-switch": Command("visualize_switch", "visualize_switch", "Draw the learned switch of every SAC layer."),
    "ablate": Command("ablate", "ablate", "Rows of a table, several seeds: what differs for sure."),
    "benchmark": Command("benchmark", "benchmark", "Time models by stage, side by side, beside the machine."),
    "export": Command("export", "export", "Write a checkpoint as ONNX or pt2, compared with it."),
    "convert": Command("convert", "convert", "Turn published checkpoints into this project's, and back."),
    "data": Command("data", "app", "Check, describe and make data sets."),
    "configs": Command("configs", "app", "List, show, compare and check configurations."),
    "info": Command("info", "info", "Versions, devices and backends: for bug reports."),
}


class LazyGroup(TyperGroup):
    """Imports a subcommand when it is called, and turns errors that the user can mend into one message."""

    # The context's class is Typer's own or Click's, depending on Typer's version: hence Any.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:  # wherever it stands: it is mostly added to a line that just failed
            args = ["--debug", *(word for word in args if word != "--debug")]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo("dsctool: interrupted", err=True)
            raise typer.Exit(130) from error
        except SaidElsewhereError as error:
            raise typer.Exit(1) from error
        except (DsctoolError, OSError) as error:
            if ctx.params["debug"] or getattr(error, "errno", None) == errno.EPIPE:
                raise
            typer.echo(f"dsctool: error: {_plain(error)}", err=True)
            raise typer.Exit(1) from error
        except (MemoryError, RuntimeError) as error:
            shortage = memory_shortage(error)
            if ctx.params["debug"] or shortage is None:
                raise
            typer.echo(f"dsctool: error: {shortage}. {_LESS_MEMORY}", err=True)
            raise typer.Exit(1) from error


_LESS_MEMORY = (
    "Smaller images (data.test_resize, data.train_resize), a smaller train.batch_size, fewer data.workers or fewer "
    "instances at once (postprocess.max_per_image) take less; --debug shows where it was."
)


def _plain(error: Exception) -> str:
    """The file and what is wrong with it, as in all other messages, where Python says ``[Errno 13] ...``."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    return str(error)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help and errors: nothing boxed or cut when piped
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dsctool {dsctool.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Cascade instance segmentation for crowded, overlapping things: train, evaluate, predict.

    Start with:

        dsctool configs list
        dsctool data check DIR
        dsctool train htc_tiny --data DIR --output runs/first
    """


def _placeholder() -> None:
    """Stands for a subcommand in the overview until it is called."""


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary)(_placeholder)


def load_command(name: str) -> Any:
    """The Typer command or group behind a subcommand's name, imported now."""
    home = COMMANDS[name]
    return _made(name, getattr(import_module(f"dsctool.cli.{home.module}"), home.attribute))


@cache  # for programs that call it several times
def _made(name: str, target: Any) -> Any:
    if isinstance(target, typer.Typer):
        target.rich_markup_mode = None
        command: Any = get_group(target)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(target)
        command = get_command(single)
    _keep_examples(command)
    return command


def _keep_examples(command: Any) -> None:
    """Keep the line breaks of indented paragraphs, the examples, in the help of a command and those below it."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(f"\b\n{text}" if text.startswith("  ") else text for text in paragraphs)
    for below in getattr(command, "commands", {}).values():
        _keep_examples(below)


def main() -> None:
    """The console script."""
    command = get_command(app)
    _keep_examples(command)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd files that it reads all the same
    try:
        command.main(prog_name="dsctool")
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"dsctool: internal error: {_where_and_what(error)}", err=True)
        typer.echo("This is a bug in dsctool: run the command again with --debug to see the traceback.", err=True)
        sys.exit(1)
    finally:
        _flush_quietly()


def _where_and_what(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {frame.filename}:{frame.lineno}: {error}"


def _flush_quietly() -> None:
    """Write what is buffered now: a reader that has gone (``| head``) must not cause a message at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
