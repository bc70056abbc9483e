"""Configuration values before validation: every one remembers where it was written.

The merge rules, in full: mappings merge; scalars and lists replace; a mapping whose ``kind``
changes replaces its parent whole; ``null`` switches a block off, and a mapping over ``null``
makes a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dsctool.config.schema_keys import implied_kind

Keys = tuple[str, ...]
"""A place in the configuration: ``("model", "neck", "rfp")``."""


@dataclass(frozen=True)
class Leaf:
    """A scalar, a list or null, and where it was written (``file:line`` or ``override #i``)."""

    value: object
    origin: str


@dataclass(frozen=True)
class Branch:
    """A mapping, and where it was opened."""

    children: Mapping[str, Node]
    origin: str


Node = Leaf | Branch


def merge(parent: Branch, child: Branch, *, at: Keys = ()) -> Branch:
    """``child`` laid over ``parent``, by the rules above; ``at`` is where both stand in the configuration."""
    if _kind_changes(parent, child, at):
        return child
    merged = dict(parent.children)
    for key, node in child.children.items():
        below = merged.get(key)
        if isinstance(below, Branch) and isinstance(node, Branch):
            node = merge(below, node, at=(*at, key))
        merged[key] = node
    return Branch(merged, child.origin)


def _kind_changes(parent: Branch, child: Branch, at: Keys) -> bool:
    new = child.children.get("kind")
    if new is None:
        return False
    old = parent.children.get("kind")
    before = old.value if isinstance(old, Leaf) else implied_kind(at)
    return before is not None and not (isinstance(new, Leaf) and new.value == before)


def to_plain(node: Node) -> object:
    """The bare values, without their origins."""
    if isinstance(node, Leaf):
        return node.value
    return {key: to_plain(child) for key, child in node.children.items()}


def from_plain(value: object, origin: str) -> Node:
    """The reverse of :func:`to_plain`, with one origin for everything."""
    if isinstance(value, Mapping):
        return Branch({str(key): from_plain(child, origin) for key, child in value.items()}, origin)
    return Leaf(list(value) if isinstance(value, tuple) else value, origin)


def find(tree: Branch, keys: Keys) -> Node | None:
    """The node at ``keys``, or None where nothing was written."""
    node: Node | None = tree
    for key in keys:
        if not isinstance(node, Branch):
            return None
        node = node.children.get(key)
    return node


def nearest_origin(tree: Branch, keys: Keys) -> str:
    """Where ``keys``, or else the closest block around it, was written."""
    node: Node = tree
    for key in keys:
        below = node.children.get(key) if isinstance(node, Branch) else None
        if below is None:
            break
        node = below
    return node.origin


def leaves(values: Mapping[str, object], *, at: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """Every leaf of nested plain mappings with its place, in order; lists are leaves."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, at=(*at, key))
        else:
            yield (*at, key), value
