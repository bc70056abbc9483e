"""Tensors that follow from weights, kept while nothing is about to change the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from dsctool.ops.precision import full_precision


class Derived(nn.Module):
    """What a function makes of a module's weights.

    It is kept from one call to the next only while nothing is about to change the weights: in eval mode, without
    gradients being recorded, and while the first of them holds no gradient that an optimiser could apply. What was
    kept is dropped when one of these ends, and by ``train()``, ``eval()``, ``load_state_dict`` and moves to another
    device or type. Who writes into a weight by hand in eval mode calls ``eval()`` once more.

    It is made in the weights' own type, whatever precision the caller computes in: one that was kept serves all.
    """

    def __init__(self, derive: Callable[..., Tensor]) -> None:
        """derive: differentiable, if gradients are to reach the weights; always called with the same ones."""
        super().__init__()
        self._derive = derive
        self._kept: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(self, *weights: Tensor) -> Tensor:
        """What is made of ``weights``."""
        if torch.compiler.is_exporting() and self._kept is not None:
            return self._kept  # a constant of the program
        if self.training or torch.is_grad_enabled() or weights[0].grad is not None or torch.compiler.is_compiling():
            self._kept = None
            return self._made_of(weights)
        if self._kept is None:
            self._kept = self._made_of(weights)
        return self._kept

    def _made_of(self, weights: tuple[Tensor, ...]) -> Tensor:
        with full_precision(weights[0].device):
            return self._derive(*weights)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``: whoever evaluates starts from the weights as they are now."""
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # copies make their own


def _forget(derived: nn.Module, _: object) -> None:
    assert isinstance(derived, Derived)
    derived._kept = None
