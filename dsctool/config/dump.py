"""Resolved configurations as YAML text, plain or with the origin of every value, and their differences."""

from __future__ import annotations

import enum
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from dsctool.config.loading import Resolved
from dsctool.config.schema import Config
from dsctool.config.tree import Keys, leaves

WIDEST_ALIGNED: Final = 60
"""Longer lines don't push the column of origins to the right, in characters."""


def config_to_yaml(config: Config) -> str:
    """Every value, defaults included, as a YAML file that loads to an equal configuration."""
    return _dump(_commentable(config.model_dump(), spaced=True))


def annotated_yaml(resolved: Resolved) -> str:
    """As :func:`config_to_yaml`, with a comment behind each value that says who set it."""
    values = resolved.config.model_dump()
    document = _commentable(values, spaced=True)
    column = 2 + max(len(line) for line in _dump(document).splitlines() if len(line) <= WIDEST_ALIGNED)
    for keys, _ in leaves(values):
        _comment(document, keys, resolved.provenance[".".join(keys)], column)
    return _dump(document)


class Absent(enum.Enum):
    """The side of a difference that has no such key."""

    ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One leaf in which two configurations differ; ``Absent.ABSENT`` where one has no such key."""

    key: str
    left: object
    right: object


def diff_configs(left: Config, right: Config) -> list[Difference]:
    """The leaves in which two configurations differ, in the order of the schema."""
    ours, theirs = (_flat(side) for side in (left, right))
    sides = [(key, ours.get(key, Absent.ABSENT), theirs.get(key, Absent.ABSENT)) for key in {**ours, **theirs}]
    return [Difference(key, one, other) for key, one, other in sides if one != other]


def _flat(config: Config) -> dict[str, object]:
    return {".".join(keys): value for keys, value in leaves(config.model_dump())}


class _Representer(RoundTripRepresenter):
    """Writes null as a word, since an empty value looks forgotten, and text with control characters in quotes."""

    def represent_null(self, data: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_text(self, data: str) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Representer.add_representer(type(None), _Representer.represent_null)
_Representer.add_representer(str, _Representer.represent_text)


def _dump(document: CommentedMap) -> str:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _commentable(values: Mapping[str, object], *, spaced: bool = False) -> CommentedMap:
    """Nested mappings as ruamel's, ``kind`` first, lists on one line.

    ``spaced`` puts an empty line before each block.
    """
    document = CommentedMap()
    for key, value in sorted(values.items(), key=lambda item: item[0] != "kind"):
        if isinstance(value, Mapping):
            document[key] = _commentable(value)
            if spaced:
                document.yaml_set_comment_before_after_key(key, before="\n")
        else:
            document[key] = _one_line(value)
    return document


def _one_line(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    sequence = CommentedSeq(_one_line(entry) for entry in value)
    sequence.fa.set_flow_style()
    return sequence


def _comment(document: CommentedMap, keys: Keys, text: str, column: int) -> None:
    for key in keys[:-1]:
        document = document[key]
    document.yaml_add_eol_comment(text, keys[-1], column=column)
