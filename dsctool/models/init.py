"""Initialisation of the layers outside the backbone, as in effect in the published implementations."""

from __future__ import annotations

from torch import Tensor, nn


def init_xavier(*layers: nn.Module) -> None:
    """Xavier uniform weights, zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.xavier_uniform_(weight)
        if bias is not None:
            nn.init.zeros_(bias)


def init_kaiming(*layers: nn.Module) -> None:
    """Kaiming normal weights (fan out, ReLU gain), zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        if bias is not None:
            nn.init.zeros_(bias)


def init_normal(*layers: nn.Module, std: float) -> None:
    """Normal weights of standard deviation ``std``, zero biases."""
    for layer in layers:
        weight, bias = _parameters(layer)
        nn.init.normal_(weight, std=std)
        if bias is not None:
            nn.init.zeros_(bias)


def init_zeros(*layers: nn.Module) -> None:
    """Zero weights, zero biases."""
    for layer in layers:
        for parameter in _parameters(layer):
            if parameter is not None:
                nn.init.zeros_(parameter)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    parameters = dict(layer.named_parameters(recurse=False))
    return parameters["weight"], parameters.get("bias")
