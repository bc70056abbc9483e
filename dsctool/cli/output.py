"""Files that commands write, and progress that they show."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.terms import Progress

STDOUT = Path("-")
"""What ``--json`` calls standard output."""
_Item = TypeVar("_Item")


def prepare_file(path: Path | None) -> None:
    """Make the folder of a file that will be written, so that a wrong path fails now and not hours later."""
    if path is None or path == STDOUT:
        return
    if path.is_dir():
        raise DsctoolError(f"{path}: is a folder; give a file to write")
    prepare_folder(path.parent)


def prepare_folder(path: Path) -> None:
    """Make a folder that files will be written to, and make sure that they can be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = "is a file; name a folder" if path.is_file() else f"cannot be made: {error.strerror}"
        raise DsctoolError(f"{path}: {problem}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DsctoolError(f"{path}: files cannot be written to this folder; name another, or change its permissions")


def keep_apart(written: Sequence[Path | None], read: Sequence[Path | None]) -> None:
    """Refuse a command that would write over a file that it reads, or one file twice."""
    taken = {_real(path) for path in read if path is not None}
    for path in written:
        if path is None or path == STDOUT:
            continue
        if _real(path) in taken:
            raise DsctoolError(
                f"{path}: would be written over, but this command needs it for something else; name another --output"
            )
        taken.add(_real(path))


def _real(path: Path) -> Path:
    """The file that a path leads to; of links that lead to each other one of them, where pathlib gives up."""
    return Path(os.path.realpath(path))


def clear_results(
    folder: Path,
    own: Sequence[str],
    *,
    overwrite: bool,
    keep: Sequence[Path | None] = (),
    made: Callable[[Path], bool] = lambda path: True,
) -> None:
    """See to it that no results of an earlier run stay in ``folder``: refuse it where there are some, or remove them.

    own: patterns of the files that the command writes; nothing else is looked at. keep: files that this run reads.
    made: whether a run made a file, where its name does not say so; what none made is never removed.
    """
    there = {path for name in own for path in folder.glob(name) if path.is_file()}
    kept = {_real(path) for path in keep if path is not None} if there else set()
    found = sorted(path for path in there if _real(path) not in kept)
    if not found:
        return
    if not overwrite:
        shown = str(found[0].relative_to(folder)) + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        raise DsctoolError(
            f"{folder}: has results of an earlier run ({shown}); name a new folder, or replace them with --overwrite"
        )
    foreign = next((path for path in found if not made(path)), None)
    if foreign is not None:
        raise DsctoolError(f"{foreign}: is in the way, and of no run that is on record here; name a new folder")
    for path in found:
        path.unlink()
    for parent in sorted({parent for path in found for parent in path.relative_to(folder).parents}, reverse=True):
        if parent != Path() and not any((folder / parent).iterdir()):
            (folder / parent).rmdir()


def write_json(path: Path, content: object, *, indent: int | None = None) -> None:
    """Write ``content`` to a file, whole or not at all, or to standard output where ``path`` is ``-``."""
    from dsctool.files import write_text

    text = json.dumps(content, indent=indent) + "\n"
    if path == STDOUT:
        typer.echo(text, nl=False)
    else:
        write_text(path, text)


def beside(json_file: Path | None) -> AbstractContextManager[Any]:
    """Text goes to standard error while standard output is for JSON (``--json -``)."""
    return redirect_stdout(sys.stderr) if json_file == STDOUT else nullcontext()


@contextmanager
def counting() -> Iterator[Progress]:
    """Progress of counted work on standard error: a bar on a terminal, else a line now and then."""
    from rich.console import Console

    from dsctool.engine.progress import counting as shown

    with shown(Console(stderr=True)) as progress:
        yield progress


@contextmanager
def counted(items: Sequence[_Item], task: str) -> Iterator[Iterator[_Item]]:
    """``items`` one by one, and :func:`counting` of those that are done."""
    with counting() as progress:

        def each() -> Iterator[_Item]:
            for number, item in enumerate(items, start=1):
                yield item
                progress(task, number, len(items))

        yield each()
