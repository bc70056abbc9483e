"""Grids of ablations: a base configuration, and rows that each change something."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dsctool.config.loading import load_config
from dsctool.config.names import GRIDS, config_root, display
from dsctool.config.problems import Problem, failure
from dsctool.config.reading import read_file
from dsctool.config.schema import Config
from dsctool.config.tree import Branch, Leaf, nearest_origin, to_plain
from dsctool.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
Overrides = tuple[str, ...]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RowConfig(_Block):
    """A row. title: in tables; the row's name where there is none. base: its configuration, in place of the grid's.

    overrides: ``key=value``, over those of the grid. of: another row, whose weights this one looks at with its own
    overrides; nothing is trained for it then.
    """

    title: str | None = None
    base: str | None = None
    overrides: Overrides = ()
    of: str | None = None


class RatesConfig(_Block):
    """Which learning rate a row gets: the best of some, by the mask AP (box AP without masks) of one run each.

    factors: of the row's own ``optim.lr``. overrides: that make these runs short. seed: of these runs alone.
    """

    factors: Annotated[tuple[Annotated[float, Field(gt=0, strict=False)], ...], Field(min_length=2)] = (0.5, 1.0, 2.0)
    overrides: Overrides = ()
    seed: Annotated[int, Field(ge=0)] = 1000


class GridConfig(_Block):
    """What a file of a grid says.

    extends: a grid beside this one, whose keys count where this one has none. base: a shipped configuration or a YAML
    file. overrides: ``key=value``, of all rows. reference: the row that the others are compared with; None: the first.
    rates: None: all rows keep the learning rate that they are configured with.
    """

    description: str = ""
    extends: str | None = None
    base: str
    overrides: Overrides = ()
    reference: str | None = None
    rates: RatesConfig | None = None
    rows: Annotated[dict[str, RowConfig], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, row in self.rows.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"row {name}: names are lower-case letters, digits, '_', '.' and '-'")
            if row.of is None:
                continue
            if row.of not in self.rows or self.rows[row.of].of is not None:
                raise ValueError(f"row {name}: of = {row.of} must be another row, which is trained")
            if row.base is not None:
                raise ValueError(f"row {name}: has the weights of {row.of}, so it can have no base of its own")
        if self.reference is not None and self.reference not in self.rows:
            raise ValueError(f"reference = {self.reference} is not one of the rows: {', '.join(self.rows)}")
        return self


@dataclass(frozen=True)
class Row:
    """A row, ready to run. base: of the ``config`` that is trained, which has all ``overrides``, the grid's first.

    changes: what of the overrides is its own. of: the row that is trained for it; None: itself. seen: ``key=value``
    with which the trained weights are looked at.
    """

    name: str
    title: str
    base: str
    overrides: Overrides
    changes: Overrides
    of: str | None
    seen: Overrides
    config: Config


@dataclass(frozen=True)
class Grid:
    """A grid whose rows are all valid. name: of its file. reference: the row that others are compared with."""

    name: str
    description: str
    rows: Sequence[Row]
    reference: str
    rates: RatesConfig | None

    @property
    def trained(self) -> list[Row]:
        """The rows that are trained."""
        return [row for row in self.rows if row.of is None]

    def row(self, name: str) -> Row:
        """By its name."""
        return next(row for row in self.rows if row.name == name)

    def only(self, names: Sequence[str]) -> Grid:
        """Some rows, the reference (and what they have their weights from) among them.

        Raises:
            ConfigError: there is no such row.
        """
        self._require(names)
        wanted = {self.reference, *names} if names else {row.name for row in self.rows}
        wanted |= {of for name in wanted if (of := self.row(name).of) is not None}
        return replace(self, rows=[row for row in self.rows if row.name in wanted])

    def against(self, reference: str) -> Grid:
        """The same rows, compared with another one.

        Raises:
            ConfigError: there is no such row.
        """
        self._require([reference])
        return replace(self, reference=reference)

    def _require(self, names: Sequence[str]) -> None:
        there = [row.name for row in self.rows]
        if unknown := [name for name in names if name not in there]:
            raise ConfigError(f"no row {', '.join(unknown)}; there are {', '.join(there)}")


def grid_names() -> dict[str, Path]:
    """The shipped grids."""
    return {path.stem: path for path in sorted((config_root() / GRIDS).glob("[!_]*.yaml"))}


def load_grid(source: str, changes: Sequence[str] = ()) -> Grid:
    """The grid of a file, or a shipped one. changes: ``key=value`` of all rows, over what they say.

    Raises:
        ConfigError: there is none, or something is wrong with it or a row; the message lists everything, with lines.
    """
    path = grid_names().get(source, Path(source))
    if not path.is_file():
        raise ConfigError(f"{source}: no such file, and none of the shipped grids: {', '.join(grid_names())}")
    tree, problems = _read(path)
    try:
        content = GridConfig.model_validate_json(json.dumps(to_plain(tree), default=str), strict=True)
    except ValidationError as error:
        found = [_problem(tree, each["loc"], each["msg"]) for each in error.errors(include_url=False)]
        raise failure([*problems, *found], source=display(path)) from None
    rows = []
    for name in content.rows:
        try:
            rows.append(_row(content, name, path, changes))
        except ConfigError as error:
            problems.append(_problem(tree, ("rows", name), str(error)))
    if problems:
        raise failure(problems, source=display(path))
    return Grid(path.stem, content.description, rows, content.reference or rows[0].name, content.rates)


def _read(path: Path) -> tuple[Branch, list[Problem]]:
    """The file, over the one that it extends."""
    tree, problems = read_file(path, shown=display(path))
    extends = tree.children.get("extends")
    if not isinstance(extends, Leaf) or extends.value is None:
        return tree, problems
    parent = path.parent / str(extends.value)
    if not parent.is_file():
        raise Problem(extends.origin, f"extends = {extends.value}", f"no such file: {parent}").error()
    base, further = read_file(parent, shown=display(parent))
    return Branch({**base.children, **tree.children}, tree.origin), [*further, *problems]


def _row(grid: GridConfig, name: str, path: Path, changes: Sequence[str]) -> Row:
    row = grid.rows[name]
    trained = row if row.of is None else grid.rows[row.of]
    base = _base(trained.base or grid.base, path)
    overrides = (*grid.overrides, *trained.overrides, *changes)
    seen = () if row.of is None else row.overrides
    config = load_config(base, overrides)
    for further in (seen, grid.rates.overrides if grid.rates is not None else ()):
        load_config(base, [*overrides, *further])
    return Row(name, row.title or name, base, overrides, trained.overrides, row.of, seen, config)


def _base(base: str, grid: Path) -> str:
    """A file beside the grid's, or a shipped name."""
    beside = grid.parent / base
    return str(beside) if beside.is_file() else base


def _problem(tree: Branch, location: Sequence[int | str], text: str) -> Problem:
    keys = tuple(part for part in location if isinstance(part, str))
    text = text.removeprefix("Value error, ")
    return Problem(nearest_origin(tree, keys), ".".join(map(str, location)), text[:1].lower() + text[1:])
