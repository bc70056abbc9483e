"""How the configuration of a run differs from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from dsctool.config.dump import Absent, Difference, diff_configs
from dsctool.config.limits import keep_limits
from dsctool.config.loading import load_config
from dsctool.config.names import shipped_paths
from dsctool.config.problems import show_value
from dsctool.config.schema import Config
from dsctool.config.tree import leaves

_NO_MATTER = ("description", "schema_version")


@dataclass(frozen=True)
class Nearest:
    """The shipped configuration that differs least from another one. differences: ``left`` is shipped."""

    name: str
    differences: list[Difference]


def nearest_shipped(config: Config) -> Nearest:
    """Limits that are ``auto`` as shipped fit every number; of equally near ones it is the first by folder and name."""
    found = (
        Nearest(name, _differences(keep_limits(shipped, config), config)) for name, shipped in _all_shipped().items()
    )
    return min(found, key=lambda each: len(each.differences))


def varying(configs: Sequence[Config]) -> list[str]:
    """The keys that have not the same value in all of them, in the order of the schema."""
    tables = [values_of(config) for config in configs]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if any(table.get(key) != tables[0].get(key) for table in tables)]


def values_of(config: Config) -> dict[str, str]:
    """Every value, as it could stand on a command line, by its dotted key."""
    values = leaves(config.model_dump())
    return {".".join(keys): show_value(value) for keys, value in values if keys[-1] not in _NO_MATTER}


def shown(value: object) -> str:
    """A side of a difference as it could stand on a command line; ``-`` where it has no such key."""
    return "-" if value is Absent.ABSENT else show_value(value)


def _differences(left: Config, right: Config) -> list[Difference]:
    return [each for each in diff_configs(left, right) if each.key not in _NO_MATTER]


@cache
def _all_shipped() -> dict[str, Config]:
    return {name: load_config(name) for name in shipped_paths()}
