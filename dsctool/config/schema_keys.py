"""Which keys the schema knows at which place: for the ``kind`` rule and for suggestions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import get_args

from dsctool.config.model_schema import Block
from dsctool.config.schema import Config

BlockTypes = tuple[type[Block], ...]
KindAt = Callable[[tuple[str, ...]], object]
"""Tells the value of ``kind`` that is written in the block at a place, or None."""


def block_types(keys: tuple[str, ...], kind_at: KindAt | None = None) -> BlockTypes:
    """The schema classes that a block at ``keys`` may have; several where ``kind`` decides and ``kind_at`` can't.

    Empty where the schema has no block at ``keys``.
    """
    types: BlockTypes = (Config,)
    for depth, key in enumerate(keys, start=1):
        fields = [block.model_fields[key] for block in types if key in block.model_fields]
        types = tuple(found for field in fields for found in _blocks_in(field.annotation))
        if len(types) > 1 and kind_at is not None:
            kind = kind_at(keys[:depth])
            types = tuple(block for block in types if kind in _kinds(block)) or types
    return types


def is_tagged(keys: tuple[str, ...]) -> bool:
    """Whether ``kind`` chooses between several classes at ``keys``."""
    return len(block_types(keys)) > 1


def implied_kind(keys: tuple[str, ...]) -> object:
    """The ``kind`` of a block that doesn't write one; None where it must be written or there is no kind."""
    types = block_types(keys)
    if len(types) != 1 or "kind" not in types[0].model_fields:
        return None
    field = types[0].model_fields["kind"]
    return None if field.is_required() else field.default


@cache
def all_keys() -> tuple[str, ...]:
    """Every dotted key of the schema, blocks included, over all kinds."""
    return tuple(dict.fromkeys(_walk((Config,), "")))


def _walk(types: BlockTypes, prefix: str) -> Iterator[str]:
    for block in types:
        for name, field in block.model_fields.items():
            yield prefix + name
            yield from _walk(_blocks_in(field.annotation), f"{prefix}{name}.")


def _blocks_in(annotation: object) -> BlockTypes:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return (annotation,)
    return tuple(found for part in get_args(annotation) for found in _blocks_in(part))


def _kinds(block: type[Block]) -> tuple[object, ...]:
    return get_args(block.model_fields["kind"].annotation) if "kind" in block.model_fields else ()
