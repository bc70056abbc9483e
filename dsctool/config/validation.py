"""A tree against the schema: pydantic's findings, told in plain words with their places."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dsctool.config.problems import Problem, show_value
from dsctool.config.schema import SCHEMA_VERSION, Config
from dsctool.config.schema_keys import all_keys, block_types, is_tagged
from dsctool.config.tree import Branch, Keys, Leaf, find, nearest_origin, to_plain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Context = Mapping[str, object]


def validate(tree: Branch) -> tuple[Config | None, list[Problem]]:
    """The configuration, or None and everything that the schema has against it."""
    version = find(tree, ("schema_version",))
    if isinstance(version, Leaf) and type(version.value) is int and version.value > SCHEMA_VERSION:
        text = f"newer than this dsctool, which knows schema version {SCHEMA_VERSION}: update dsctool"
        return None, [Problem(version.origin, f"schema_version = {version.value}", text)]
    try:
        # JSON input, since it alone is strict about numbers, text and booleans while it takes lists for tuples.
        return Config.model_validate_json(json.dumps(to_plain(tree), default=str), strict=True), []
    except ValidationError as error:
        findings = [_Finding(details, tree) for details in error.errors(include_url=False)]
        return None, list({finding.identity: finding.problem() for finding in findings}.values())


class _Finding:
    """One of pydantic's errors, and the tree that it is about."""

    def __init__(self, details: ErrorDetails, tree: Branch) -> None:
        self.tree = tree
        self.type = details["type"]
        self.message = details["msg"]
        self.context: Context = details.get("ctx", {})
        self.keys, self.indices = _split_location(details["loc"])
        self.node = find(tree, self.keys)
        self.entry_missing = self.type == "missing" and bool(self.indices)
        if self.entry_missing:
            self.entries_needed, self.indices = self.indices[-1] + 1, self.indices[:-1]

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for findings of which only the last is told: each missing entry of a list is one for pydantic."""
        return self.keys, self.indices, self.type

    def problem(self) -> Problem:
        if self.type == "value_error":
            return self.cross_field_problem()
        where = nearest_origin(self.tree, self.keys)
        key = self.name
        if self.type in ("missing", "union_tag_not_found") and not self.entry_missing:
            return Problem(where, key, self.rule())
        if self.type == "union_tag_invalid":
            key, where = f"{key}.kind", nearest_origin(self.tree, (*self.keys, "kind"))
        return Problem(where, f"{key} = {show_value(self.value)}", self.rule())

    @property
    def name(self) -> str:
        return ".".join(self.keys) + "".join(f"[{index}]" for index in self.indices)

    @property
    def value(self) -> object:
        if self.type == "union_tag_invalid":
            return self.context.get("tag")
        value = None if self.node is None else to_plain(self.node)
        for index in self.indices:
            value = value[index] if isinstance(value, list) and index < len(value) else None
        return value

    def rule(self) -> str:
        match self.type:
            case "extra_forbidden":
                return f"unknown key{self.suggestion()}"
            case "missing" if self.entry_missing:
                return f"must be a list of {self.entries_needed} entries"
            case "too_short":
                return f"must be a list of {self.context['min_length']} or more entries"
            case "too_long":
                return f"must be a list of {self.context['max_length']} entries"
            case "missing":
                return "required, and written nowhere"
            case "literal_error":
                return self.choice_rule(str(self.context["expected"]))
            case "union_tag_not_found":
                kinds = [kind for block in block_types(self.keys) for kind in _kinds_of(block)]
                return f"needs a 'kind': {_either(kinds)}"
            case "union_tag_invalid":
                return self.choice_rule(str(self.context["expected_tags"]))
            case _ if self.type in _LIMITS:
                word, name = _LIMITS[self.type]
                return f"must be {word} {self.context[name]:g}"
            case _:
                return self.type_rule()

    def type_rule(self) -> str:
        expected = next((text for prefix, text in _TYPES.items() if self.type.startswith(prefix)), None)
        if expected is None:
            return self.message[:1].lower() + self.message[1:]
        if self.value is None and self.node is not None:
            return f"must be {expected}: null can't be used here"
        if isinstance(self.value, str) and expected != "text" and _is_number(self.value):
            return f"must be {expected}: leave out the quotes"
        return f"must be {expected}"

    def choice_rule(self, expected: str) -> str:
        choices = re.findall(r"'([^']*)'|(-?\d+)", expected)
        words = [text or number for text, number in choices]
        close = difflib.get_close_matches(str(self.value), words, n=1)
        return f"must be {_either(words)}" + (f"; did you mean {close[0]}?" if close else "")

    def suggestion(self) -> str:
        *around, wrong = self.keys
        types = block_types(tuple(around), self.kind_at)
        here = list(dict.fromkeys(name for block in types for name in block.model_fields))
        prefix = "".join(f"{key}." for key in around)
        if close := difflib.get_close_matches(wrong, here, n=1, cutoff=0.7):
            return f"; did you mean {prefix}{close[0]}?"
        if elsewhere := [key for key in all_keys() if key.rpartition(".")[2] == wrong]:
            return f"; did you mean {' or '.join(elsewhere[:3])}?"
        if close := difflib.get_close_matches(wrong, here, n=1, cutoff=0.4):
            return f"; the nearest is {prefix}{close[0]}"
        return f"; known here: {', '.join(here)}"

    def cross_field_problem(self) -> Problem:
        """The message of a rule between fields, at the places that wrote the fields it names."""
        text = str(self.context["error"])
        children = self.node.children if isinstance(self.node, Branch) else {}
        dotted = {key: find(self.tree, tuple(key.split("."))) for key in re.findall(r"\b[a-z]\w*(?:\.\w+)+", text)}
        named: dict[str, Leaf | Branch] = {key: node for key, node in dotted.items() if isinstance(node, Leaf)}
        named = named or {name: node for name, node in children.items() if re.search(rf"\b{name}\b", text)}
        where = ", ".join(dict.fromkeys(node.origin for node in named.values()))
        values = [f"{name} = {show_value(to_plain(node))}" for name, node in named.items()]
        told = ", ".join(values)
        key = f"{self.name} ({told})" if self.name and told else self.name or told
        return Problem(where or nearest_origin(self.tree, self.keys), key, text)

    def kind_at(self, keys: Keys) -> object:
        kind = find(self.tree, (*keys, "kind"))
        return kind.value if isinstance(kind, Leaf) else None


_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "model": "a block of keys",
    "dict": "a block of keys",
}


def _split_location(location: tuple[int | str, ...]) -> tuple[Keys, tuple[int, ...]]:
    """pydantic's location as keys and list indices, without the tags that it adds at a discriminated union."""
    keys: Keys = ()
    skip_tag = False
    for part in location:
        if isinstance(part, str) and not skip_tag:
            keys = (*keys, part)
            skip_tag = is_tagged(keys)
        else:
            skip_tag = False
    return keys, tuple(part for part in location if isinstance(part, int))


def _kinds_of(block: type) -> list[str]:
    return [block.model_fields["kind"].annotation.__args__[0]]  # type: ignore[attr-defined]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
