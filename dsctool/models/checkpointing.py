"""Activations that are computed again in the backward pass, where they would have to be kept for it (Chen et al. 2016).

Gradients are the same bit for bit: the second time the same operators see the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

R = TypeVar("R")


def checkpointed(function: Callable[..., R], *inputs: object, within: nn.Module, when: bool) -> R:
    """``function(*inputs)``; of what its backward pass needs only the inputs are kept, ``when`` that is wanted.

    within: the module whose layers the function runs: its batch norms count every batch once all the same.
    """
    if not when or not torch.is_grad_enabled():
        return function(*inputs)
    result: R = checkpoint(function, *inputs, use_reentrant=False, context_fn=partial(_contexts, within))
    return result


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Around the first computation, and around the second."""
    return nullcontext(), _KeptStatistics(module)


class _KeptStatistics(AbstractContextManager[None]):
    """Inside, the batch norms of a module that would count what they see count it in copies of their statistics."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: list[tuple[nn.Module, dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        norms = (each for each in self._module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm))
        self._kept = [(norm, dict(norm._buffers)) for norm in norms if norm.training]
        for norm, buffers in self._kept:
            norm._buffers.update({name: None if x is None else x.clone() for name, x in buffers.items()})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, buffers in self._kept:
            norm._buffers.update(buffers)
        self._kept = []
