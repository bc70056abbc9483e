"""``a.b.c=value`` words of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dsctool.config.problems import Problem
from dsctool.config.reading import read_value
from dsctool.config.tree import Branch, Keys, Node, merge
from dsctool.errors import ConfigError

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Override:
    """One word: the key that it sets, the value, and ``override #i``, counted from 1."""

    keys: Keys
    node: Node
    origin: str

    def as_tree(self) -> Branch:
        """The override as a configuration of its own."""
        node = self.node
        for key in reversed(self.keys):
            node = Branch({key: node}, self.origin)
        assert isinstance(node, Branch)
        return node


def parse_overrides(words: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """The overrides in ``words``, values parsed as YAML 1.2, and what is wrong with the words."""
    overrides: list[Override] = []
    problems: list[Problem] = []
    for number, word in enumerate(words, start=1):
        found = _parse(word, f"override #{number}", problems)
        if found is not None:
            overrides.append(found)
    return overrides, problems


def apply_overrides(tree: Branch, overrides: Sequence[Override]) -> Branch:
    """``tree`` with the overrides laid over it in order.

    Those that set a ``kind`` go first: it replaces its block, and must not undo what a word before it put there.
    """
    for override in sorted(overrides, key=lambda override: override.keys[-1] != "kind"):
        tree = merge(tree, override.as_tree())
    return tree


def _parse(word: str, origin: str, problems: list[Problem]) -> Override | None:
    key, equals, text = word.partition("=")
    if not equals or not _KEY.fullmatch(key):
        problems.append(Problem(origin, word, "an override is written key=value, as in optim.lr=0.01"))
        return None
    if not text.strip():
        problems.append(Problem(origin, key, "no value after '=': write null to switch off a block"))
        return None
    try:
        node, wrong = read_value(text, origin=origin, key=key)
    except ConfigError as error:
        problems.append(Problem("", "", str(error)))
        return None
    problems.extend(wrong)
    return Override(tuple(key.split(".")), node, origin)
