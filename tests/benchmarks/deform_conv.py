"""Deformable convolution on a CPU against torchvision's operator: ``python -m tests.benchmarks.deform_conv``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer
from torchvision.ops import deform_conv2d

from dsctool.ops.deform_conv import deformable_conv

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = [(128, 60, 80), (256, 30, 40), (512, 15, 20)]
"""Channels, height and width, as in DetectoRS' stages at 480x640."""


def median_seconds(run: Callable[[], object]) -> float:
    """The median wall time of a call, over a second of them."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=1).median)


def milliseconds(operator: Operator, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Median time of the forward and of the backward pass."""
    with torch.no_grad():
        forward = median_seconds(lambda: operator(*inputs))
    out = operator(*inputs)
    grad = torch.randn_like(out)
    backward = median_seconds(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True))
    return forward * 1e3, backward * 1e3


def compare(channels: int, height: int, width: int) -> str:
    """Both operators on one shape, batch 1, channels last as in the detectors."""
    x = torch.randn(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    inputs = (x.requires_grad_(), torch.randn(1, 18, height, width).requires_grad_(), weight.requires_grad_())
    ours, ours_back = milliseconds(lambda x, o, w: deformable_conv(x, o, w, stride=1, padding=1, dilation=1), inputs)
    theirs, theirs_back = milliseconds(lambda x, o, w: deform_conv2d(x, o, w, padding=1), inputs)
    with torch.no_grad():
        plain = median_seconds(lambda: F.conv2d(x, weight, padding=1)) * 1e3
    return (
        f"{channels}x{height}x{width}: forward {ours:.1f} ms against {theirs:.1f} ({theirs / ours:.1f} times as fast; "
        f"plain convolution {plain:.1f}), backward {ours_back:.1f} ms against {theirs_back:.1f} "
        f"({theirs_back / ours_back:.1f} times)"
    )


def main() -> None:
    """Print milliseconds for every shape, with 2 threads."""
    torch.set_num_threads(2)
    for shape in SHAPES:
        print(compare(*shape))


if __name__ == "__main__":
    main()
