"""What a network computes in: float32, or half of it where that is harmless, by autocast.

What needs the digits is float32 under autocast as well; its modules see to that (:mod:`dsctool.ops.precision`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dsctool.errors import ConfigError
from dsctool.terms import Precision

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Inside, networks on ``device`` compute in ``precision``.

    Weights change between two of these and not inside one, where autocast keeps their copies of half precision.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def require(precision: Precision, device: torch.device) -> None:
    """Raise ConfigError when ``device`` does not compute in ``precision``."""
    if precision == "float32":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # by which autocast says that it will do nothing
        try:
            with computing_in(precision, device):
                one = torch.ones(1, 1, device=device)
                found = (one @ one).dtype
        except (RuntimeError, UserWarning) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{device} does not compute in {precision}: {reason} Take another precision.") from error
    if found != _TYPES[precision]:
        raise ConfigError(f"{device} does not compute in {precision}. Take another precision.")


class LossScale:
    """Keeps float16's gradients from vanishing: losses are multiplied by a factor, and gradients divided by it.

    The factor is halved when gradients overflow, and doubled after 2,000 steps in which none did. A step that overflows
    changes no weight and is skipped.
    """

    def __init__(self, device: torch.device, *, max_skipped: int) -> None:
        """max_skipped: steps in a row that may be skipped."""
        self._scaler = torch.amp.GradScaler(device.type)
        self._max_skipped = max_skipped
        self.in_a_row = 0
        """Steps that were skipped since the last one that was not."""

    @property
    def factor(self) -> float:
        """By which losses are multiplied now."""
        return self._scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to go back from."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the gradients their own size."""
        self._scaler.unscale_(optimizer)

    def took(self, *, finite: bool) -> bool:
        """Adapt the factor after a step; whether one that is not finite may be skipped, as it may a number of times."""
        self._scaler.update()
        self.in_a_row = 0 if finite else self.in_a_row + 1
        return self.in_a_row <= self._max_skipped

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for a run that goes on."""
        return {"scaler": self._scaler.state_dict(), "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._scaler.load_state_dict(dict(state["scaler"]))
        self.in_a_row = state["in_a_row"]
