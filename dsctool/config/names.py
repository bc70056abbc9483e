"""Names of the shipped configurations, and where their files are."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dsctool.config.problems import Problem
from dsctool.config.reading import read_file
from dsctool.config.tree import Leaf
from dsctool.errors import ConfigError

GRIDS = "ablations"
"""The folder of grids, which are no configurations."""
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ShippedConfig:
    """A configuration that comes with dsctool.

    name: what the command line takes.
    family: its folder, ``htc``.
    path: its file.
    description: one line.
    """

    name: str
    family: str
    path: Path
    description: str


@cache
def config_root() -> Path:
    """The folder of the shipped configurations: inside an installed package, beside it in a source tree."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "_base_").is_dir():
            return folder
    raise ConfigError(f"the shipped configurations are missing from {package}: install dsctool again")


@cache
def shipped_paths() -> dict[str, Path]:
    """Name to file of every shipped configuration, sorted by folder and name; ``_base_`` files have no name."""
    root = config_root()
    files = sorted(path for path in root.rglob("*.yaml") if path.relative_to(root).parts[0] not in ("_base_", GRIDS))
    return {path.stem: path for path in files}


def list_configs() -> list[ShippedConfig]:
    """Every shipped configuration with its description."""
    found = []
    for name, path in shipped_paths().items():
        tree, _ = read_file(path, shown=display(path))
        description = tree.children.get("description")
        text = str(description.value) if isinstance(description, Leaf) else ""
        found.append(ShippedConfig(name=name, family=path.parent.name, path=path, description=text))
    return found


def find_config(source: str | Path) -> Path:
    """The file of ``source``: a path if it exists or ends in ``.yaml``, else the name of a shipped configuration.

    Raises :class:`ConfigError` with the nearest names where there is neither.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix in YAML_SUFFIXES or isinstance(source, Path):
        reason = "is a folder, not a file" if path.is_dir() else "no such file"
        raise ConfigError(f"{source}: {reason}{_hint(path.stem)}")
    if source in shipped_paths():
        return shipped_paths()[source]
    raise ConfigError(f"unknown configuration '{source}': neither a file nor a shipped name{_hint(source)}")


def find_base(base: str, *, child: Path, origin: str) -> Path:
    """The file that ``base:`` of the file ``child`` means: a path relative to it, or as shipped, or a shipped name.

    As shipped means ``_base_/crowded.yaml``.
    """
    path = child.parent / Path(base).expanduser()
    for file in (path, config_root() / base):
        if file.is_file():
            return file
    if base in shipped_paths():
        return shipped_paths()[base]
    siblings = [str(Path(base).parent / file.name) for file in path.parent.glob("*.yaml")]
    close = difflib.get_close_matches(base, [*siblings, *shipped_paths()], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise Problem(origin, f"base = {base}", f"no such file: {path.resolve()}{hint}").error()


def display(path: Path) -> str:
    """``path`` as shown to people: ``configs/...`` for a shipped file, relative below the current folder."""
    absolute = path.resolve()
    for folder, prefix in ((config_root(), Path("configs")), (Path.cwd(), Path())):
        if absolute.is_relative_to(folder.resolve()):
            return str(prefix / absolute.relative_to(folder.resolve()))
    return str(path)


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name, shipped_paths(), n=3, cutoff=0.5)
    nearest = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{nearest} ('dsctool configs list' shows all shipped names)"
