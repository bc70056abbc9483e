"""Deformable convolution by mmcv, where ``mmcv.ops`` can be imported (``model.ops: mmcv``).

It computes the same numbers as :mod:`dsctool.ops.deform_conv`; it is there for comparisons with code
that uses it. mmcv has no wheels for current PyTorch (the README says how to build it), so nothing else here imports it.
"""

from __future__ import annotations

from torch import Tensor

from dsctool.errors import ConfigError
from dsctool.ops.precision import full_precision


def unavailable() -> str | None:
    """Why mmcv's operators cannot be used here, or None."""
    try:
        import mmcv.ops  # noqa: F401
    except ImportError as error:
        return f"mmcv.ops cannot be imported ({error})"
    return None


def require() -> None:
    """Raise ConfigError where mmcv's operators cannot be used."""
    reason = unavailable()
    if reason is not None:
        raise ConfigError(f"model.ops=mmcv: {reason}; the default, model.ops=torchvision, needs nothing more")


def mmcv_deformable_conv(
    x: Tensor, offset: Tensor, weight: Tensor, *, stride: int, padding: int, dilation: int, groups: int = 1
) -> Tensor:
    """As :func:`dsctool.ops.deform_conv.deformable_conv`."""
    from mmcv.ops import deform_conv2d

    x, offset, weight = (tensor.float().contiguous() for tensor in (x, offset, weight))
    with full_precision(x.device):
        out: Tensor = deform_conv2d(x, offset, weight, stride, padding, dilation, groups)
    return out
