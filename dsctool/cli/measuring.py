"""``dsctool predict --table``: what is measured of instances, and where it is written."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.output import clear_results, keep_apart, prepare_file

if TYPE_CHECKING:
    from dsctool.data.records import Category
    from dsctool.engine.measures import InstanceTable, PixelSize
    from dsctool.engine.work_file import WorkFile

COUNTS = "counts.csv"
TableFile = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Also measure every instance that is shown: a CSV with a row for each, and counts.csv beside it.",
    ),
]
PixelSide = Annotated[
    str | None,
    typer.Option(
        "--pixel-size", metavar="0.325um", help="With --table: the side of a pixel; adds columns in its unit."
    ),
]


@dataclass(frozen=True)
class Tables:
    """path: of the table of instances, None where none is wanted."""

    path: Path | None
    pixel_size: PixelSize | None

    @classmethod
    def asked(cls, path: Path | None, pixel_size: str | None) -> Tables:
        """Raises what is wrong with the options, and DsctoolError where the extra is not installed."""
        if path is None:
            if pixel_size is not None:
                raise typer.BadParameter("is for --table", param_hint="--pixel-size")
            return cls(None, None)
        from dsctool.engine.measures import PixelSize, regionprops

        if path.name == COUNTS:
            raise typer.BadParameter(
                f"{COUNTS} is the table of counts beside it: give another name", param_hint="--table"
            )
        regionprops()
        return cls(path, None if pixel_size is None else PixelSize.parse(pixel_size))

    @property
    def files(self) -> list[Path]:
        """Both tables."""
        return [] if self.path is None else [self.path, self.path.with_name(COUNTS)]

    def as_option(self) -> dict[str, object]:
        """What a work file says of it."""
        return {} if self.path is None else {"table": True, "pixel_size": self.pixel_size and list(self.pixel_size)}

    def prepare(
        self, output: Path, *, resume: bool, overwrite: bool, written: Sequence[Path | None],
        read: Sequence[Path | None],
    ) -> None:  # fmt: skip
        """What is in the way is found now, and tables of an earlier run in ``output`` go where it is to be replaced.

        written, read: the other files of the command.
        """
        if overwrite:
            stale = [glob.escape(path.name) for path in output.glob("*.csv") if path.is_file() and _is_ours(path)]
            clear_results(output, stale, overwrite=True, keep=read)
        if self.path is None:
            return
        keep_apart([*written, *self.files], read)
        for file in self.files:
            prepare_file(file)
        names = [glob.escape(file.name) for file in self.files]
        clear_results(self.path.parent, [f".{name}.*.tmp" for name in names], overwrite=True)
        if not resume:
            clear_results(self.path.parent, names, overwrite=overwrite, keep=read, made=_is_ours)

    def of(self, categories: Sequence[Category], thresholds: Mapping[int, float]) -> InstanceTable | None:
        """What measures. thresholds: the lowest score that has a row, by category id."""
        from dsctool.engine.measures import InstanceTable

        return None if self.path is None else InstanceTable(categories, thresholds, self.pixel_size)

    def write(self, work: WorkFile, table: InstanceTable | None) -> None:
        """Both files from what was measured."""
        if table is not None:
            instances, counts = self.files
            work.write_tables(instances, counts, table)

    def say(self) -> None:
        """Where they are."""
        if self.path is not None:
            typer.echo(f"{self.path}: measures of every instance; {COUNTS} beside it: how many of each class")


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(200).startswith(b"image_id,image,category_id,class,")
