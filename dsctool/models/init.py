"""Initialisation of the layers outside the backbone, as in effect in the published implementations."""

from __future__ import annotations

from torch import Tensor, nn


def init_xavier(*layers: nn.Module) -> None:
    """Xavier uniform weights, zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.xavier_uniform_(weight)
        nn.init.zeros_(bias)


def init_kaiming(*layers: nn.Module) -> None:
    """Kaiming normal weights (fan out, ReLU gain), zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(bias)


def init_normal(*layers: nn.Module, std: float) -> None:
    """Normal weights of standard deviation ``std``, zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.normal_(weight, std=std)
        nn.init.zeros_(bias)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("weight"), layer.get_parameter("bias")
