"""YAML 1.2 text to a tree that knows the line of every value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.nodes import Node as YamlNode

from dsctool.config.problems import Problem
from dsctool.config.tree import Branch, Keys, Leaf, Node
from dsctool.errors import ConfigError


def read_file(path: Path, *, shown: str) -> tuple[Branch, list[Problem]]:
    """The mapping in the file, with origins ``shown:line``, and what is wrong inside it.

    Raises :class:`ConfigError` where the file can't be read, isn't YAML or holds something other than a mapping.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{shown}: can't be read: {error.strerror}") from error
    root, problems = _read_text(text, shown)
    return root, list(problems)


@lru_cache(maxsize=128)  # many configurations have the same bases
def _read_text(text: str, shown: str) -> tuple[Branch, tuple[Problem, ...]]:
    reader = _Reader(origin=lambda line: f"{shown}:{line + 1}")
    root = reader.read(text, what=shown)
    if root is None:
        raise Problem(f"{shown}:1", "", "the file is empty: a configuration is made of 'key: value' lines").error()
    if not isinstance(root, Branch):
        raise Problem(root.origin, "", "the file must be made of 'key: value' lines: this is another value").error()
    return root, tuple(reader.problems)


def read_value(text: str, *, origin: str, key: str) -> tuple[Node, list[Problem]]:
    """The value of an override, parsed as YAML 1.2, and what is wrong inside it."""
    reader = _Reader(origin=lambda line: origin, root_key=key)
    root = reader.read(text, what=origin)
    return (Leaf(None, origin) if root is None else root), reader.problems


@dataclass
class _Reader:
    origin: Callable[[int], str]
    root_key: str = ""
    problems: list[Problem] = field(default_factory=list)
    open_nodes: list[int] = field(default_factory=list)
    yaml: YAML = field(default_factory=lambda: YAML(typ="safe", pure=True))

    def read(self, text: str, *, what: str) -> Node | None:
        try:
            root = self.yaml.compose(text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            problem = Problem(self.origin(line), self.root_key, f"not valid YAML: {_reason(error)}")
            raise problem.error() from error
        except YAMLError as error:
            raise ConfigError(f"{what}: not valid YAML: {' '.join(str(error).split())}") from error
        except RecursionError:
            raise ConfigError(f"{what}: nested too deeply") from None
        return None if root is None else self.convert(root, (), self.origin(root.start_mark.line))

    def convert(self, node: YamlNode, at: Keys, origin: str) -> Node:
        if isinstance(node, MappingNode):
            return self.convert_mapping(node, at, origin)
        try:
            return Leaf(self.yaml.constructor.construct_object(node, deep=True), origin)
        except MarkedYAMLError as error:
            self.report(origin, at, f"not a plain value: {_reason(error)}")
            return Leaf(None, origin)

    def convert_mapping(self, node: MappingNode, at: Keys, origin: str) -> Branch:
        if id(node) in self.open_nodes:
            self.report(origin, at, "an alias inside the block that it stands for")
            return Branch({}, origin)
        self.open_nodes.append(id(node))
        children: dict[str, Node] = {}
        first_lines: dict[str, str] = {}
        for key_node, value_node in node.value:
            line = self.origin(key_node.start_mark.line)
            key = key_node.value if isinstance(key_node, ScalarNode) else "?"
            if key_node.tag != "tag:yaml.org,2002:str":
                self.report(line, (*at, key), "keys must be words")
            elif key in children:
                self.report(line, (*at, key), f"written twice (first at {first_lines[key]}): keep one")
            else:
                first_lines[key] = line
                children[key] = self.convert(value_node, (*at, key), line)
        self.open_nodes.pop()
        return Branch(children, origin)

    def report(self, origin: str, at: Keys, text: str) -> None:
        key = ".".join((self.root_key, *at) if self.root_key else at)
        self.problems.append(Problem(origin, key, text))


def _reason(error: MarkedYAMLError) -> str:
    parts = (error.context, error.problem)
    return ", ".join(str(part).strip() for part in parts if part)
