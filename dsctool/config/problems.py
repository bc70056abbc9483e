"""What is wrong with a configuration, in plain words with the place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dsctool.errors import ConfigError


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    where: ``file:line`` or ``override #i``.
    key: dotted key, with the value where that helps; empty where no key is meant.
    text: the rule that is broken, and what to do.
    """

    where: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.text) if part)

    def error(self) -> ConfigError:
        """This problem alone as an error."""
        return ConfigError(str(self))


def failure(problems: Sequence[Problem], *, source: str) -> ConfigError:
    """One error that lists all ``problems``, one a line."""
    if len(problems) == 1:
        return problems[0].error()
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{source}: {len(problems)} problems{lines}")


def show_value(value: object, limit: int = 60) -> str:
    """``value`` as it could stand in YAML, on one line, cut after ``limit`` characters."""
    plain = isinstance(value, str) and value and value.isprintable()
    text = str(value) if plain else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
