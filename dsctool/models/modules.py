"""Lists of modules that keep the type of what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """An ``nn.ModuleList``, typed as a sequence of what is in it."""
    return cast("Sequence[M]", nn.ModuleList(modules))
