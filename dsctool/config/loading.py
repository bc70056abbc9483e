"""From a name or a YAML file to a validated :class:`~dsctool.config.schema.Config`.

A file may name others in ``base:`` (one, or a list laid over each other from left to right): paths relative to the
file or as shipped (``_base_/crowded.yaml``), or names of shipped configurations. See :mod:`dsctool.config.tree` for the
merge rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsctool.config.names import display, find_base, find_config
from dsctool.config.overrides import apply_overrides, parse_overrides
from dsctool.config.problems import Problem, failure
from dsctool.config.reading import read_file
from dsctool.config.schema import Config
from dsctool.config.tree import Branch, Leaf, Node, find, from_plain, leaves, merge
from dsctool.config.validation import validate

DEFAULT = "default"
"""Provenance of a value that nobody wrote: it comes from the schema."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for every leaf's dotted key, who set it: ``file:line``, ``override #i`` or ``default``."""

    config: Config
    provenance: dict[str, str]


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration named ``source`` (a path, or the name of a shipped one) with ``key=value`` overrides.

    Raises :class:`ConfigError`, whose message lists everything that is wrong.
    """
    return resolve_config(source, overrides).config


def resolve_config(source: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """As :func:`load_config`, and which file and line, or which override, set each value."""
    path = find_config(source)
    problems: list[Problem] = []
    tree = _load_chain(path, problems, chain=())
    words, wrong = parse_overrides(overrides)
    tree = apply_overrides(tree, words)
    config, found = validate(tree)
    problems += [*wrong, *found]
    if config is None or problems:
        raise failure(problems, source=display(path))
    return Resolved(config, _provenance(config, tree))


def config_from_mapping(mapping: Mapping[str, object], *, source: str = "checkpoint") -> Config:
    """The configuration that plain values describe, as ``Config.model_dump(mode="json")`` makes them.

    ``source`` is named in the :class:`ConfigError` where the values don't fit the schema or are newer than it.
    """
    tree = from_plain(mapping, source)
    assert isinstance(tree, Branch)
    config, problems = validate(tree)
    if config is None:
        raise failure(problems, source=source)
    return config


def override_config(config: Config, overrides: Sequence[str], *, source: str = "checkpoint") -> Config:
    """``config`` with ``key=value`` overrides.

    ``source`` is where it came from, for the :class:`ConfigError` that lists everything that is wrong.
    """
    tree = from_plain(config.model_dump(mode="json"), source)
    assert isinstance(tree, Branch)
    words, wrong = parse_overrides(overrides)
    overridden, found = validate(apply_overrides(tree, words))
    problems = [*wrong, *found]
    if overridden is None or problems:
        raise failure(problems, source=source)
    return overridden


def _load_chain(path: Path, problems: list[Problem], *, chain: tuple[Path, ...]) -> Branch:
    """The file's mapping laid over its bases'."""
    resolved = path.resolve()
    tree, wrong = read_file(path, shown=display(path))
    problems += wrong
    own = Branch({key: node for key, node in tree.children.items() if key != "base"}, tree.origin)
    merged: Branch | None = None
    chain = (*chain, resolved)
    for name, origin in _bases(tree.children.get("base")):
        base = find_base(name, child=path, origin=origin)
        _refuse_circle(base, chain, Problem(origin, f"base = {name}", ""))
        parent = _load_chain(base, problems, chain=chain)
        merged = parent if merged is None else merge(merged, parent)
    return own if merged is None else merge(merged, own)


def _refuse_circle(base: Path, chain: tuple[Path, ...], problem: Problem) -> None:
    resolved = base.resolve()
    if resolved in chain:
        circle = [*chain[chain.index(resolved) :], resolved]
        text = f"goes in a circle: {' -> '.join(display(file) for file in circle)}"
        raise replace(problem, text=text).error()


def _bases(base: Node | None) -> list[tuple[str, str]]:
    """What ``base:`` names, each with its origin."""
    if base is None:
        return []
    names = base.value if isinstance(base, Leaf) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Problem(base.origin, "base", "must be one path or a list of paths").error()
    return [(name, base.origin) for name in names]


def _provenance(config: Config, tree: Branch) -> dict[str, str]:
    found = {}
    for keys, _ in leaves(config.model_dump()):
        node = find(tree, keys)
        found[".".join(keys)] = DEFAULT if node is None else node.origin
    return found
