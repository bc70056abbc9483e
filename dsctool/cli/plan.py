"""Commands that run one after the other, and go on where they were stopped."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from dsctool.cli.output import prepare_folder, write_json
from dsctool.cli.predict import WORK
from dsctool.errors import DsctoolError

WITH_DEVICE = ("train", "eval", "predict", "visualize-switch")


@dataclass(frozen=True)
class Step:
    """One command. words: without ``dsctool``. makes: a file that is there when it has run."""

    title: str
    words: tuple[str, ...]
    makes: Path

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["dsctool", *self.words])

    def continued(self) -> tuple[str, ...]:
        """The words, so that what an earlier try left does not stand in their way: used, replaced, or removed here."""
        if "--output" not in self.words:
            return self.words
        output = Path(self.words[self.words.index("--output") + 1])
        if (output / "last.pt").exists() or (output / WORK).exists():
            return (*self.words, "--resume")
        if self.words[0] in ("train", "data"):
            shutil.rmtree(output, ignore_errors=True)
            return self.words
        return (*self.words, "--overwrite") if output.exists() else self.words


@dataclass(frozen=True)
class Record:
    """What was asked for, and how long each command took that has run; kept in a file of their folder."""

    path: Path
    options: Mapping[str, int]
    seconds: dict[str, float]

    @classmethod
    def at(cls, path: Path, options: Mapping[str, int]) -> Record:
        """The record in a file named after what the commands make together; its folder may be new.

        Raises:
            DsctoolError: the folder has something else in it, or was made with other options.
        """
        from dsctool.files import read_json

        folder, name = path.parent, path.stem
        if not path.exists():
            prepare_folder(folder)
            if any(folder.iterdir()):
                raise DsctoolError(f"{folder}: is not empty and holds no {name}; name a new folder with --output")
            record = cls(path, options, {})
            record.save()
            return record
        content = read_json(path)
        if not isinstance(content, dict) or content.get("options") != options:
            raise DsctoolError(f"{folder}: holds a {name} with other options; name another folder with --output")
        return cls(path, options, dict(content["seconds"]))

    def save(self) -> None:
        """Write it."""
        write_json(self.path, {"options": self.options, "seconds": self.seconds}, indent=2)

    def run(self, step: Step, device: str) -> None:
        """Run a command that has not run yet, or was stopped.

        Raises:
            typer.Exit: it failed or was stopped; the code is its own.
        """
        if step.command in self.seconds and step.makes.exists():
            typer.echo(f"done before: {step.command}")
            return
        typer.echo(f"\n{step.title}:\n$ {step.command}\n")
        begun = time.monotonic()
        call(step.continued(), device)
        self.seconds[step.command] = round(time.monotonic() - begun, 1)
        self.save()


def call(words: tuple[str, ...], device: str) -> None:
    """Run ``dsctool WORDS`` as a process of its own, which gives back its memory and is what a shell would run.

    SIGINT and SIGTERM are the command's: training saves and ends with exit code 75, and so does this process.
    """
    arguments = [*words, "--device", device] if words[0] in WITH_DEVICE and device != "auto" else list(words)
    with subprocess.Popen([sys.executable, "-m", "dsctool", *arguments]) as process, _passing_on(process):
        code = process.wait()
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGTERM goes on to ``process``; SIGINT reaches it from the terminal, and this process waits for its end."""
    handlers = {
        signal.SIGTERM: lambda number, frame: process.send_signal(number),
        signal.SIGINT: lambda number, frame: None,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
