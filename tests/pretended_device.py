"""A device that is not there: CPU tensors that say they are elsewhere, so that a machine without a GPU notices what
would fail or wait on one.

Tensors of two devices do not mix, as on a GPU, and every exchange with the host is on record: what is read back, a
*read* (a value, a copy, or a size that depends on values, for which the host waits until the device has caught up), and
what is sent, an *upload*. Operators compute as on the CPU, those of dsctool as on a GPU.

PyTorch has a backend of this kind once a process, from before the first backward pass on: :func:`pretend` is meant for
a process of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import dsctool
from dsctool.ops.roi_align_operator import dense_roi_align, dense_roi_align_backward

NAME = "elsewhere"
DEVICE = torch.device("privateuseone:0")  # what PyTorch calls it until it has a name
_PACKAGE = str(Path(dsctool.__file__).parent)
_AS_ON_A_GPU: dict[str, Callable[..., Any]] = {
    "dsctool::roi_align": dense_roi_align,
    "dsctool::roi_align_backward": dense_roi_align_backward,
}
_WAITS = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select",
    "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "torchvision::nms",
}  # fmt: skip
"""Their results, or the sizes of these, are values of the device."""
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::set_", "aten::detach"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_HALF_OPERATORS = (
    "conv2d", "conv_transpose2d.input", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "einsum",
)  # fmt: skip
_FLOAT32_OPERATORS = (
    "softmax.int", "log_softmax.int", "group_norm", "layer_norm", "binary_cross_entropy_with_logits",
    "smooth_l1_loss", "cross_entropy_loss", "nll_loss", "cumsum", "prod", "sum", "pow.Tensor_Scalar", "exp", "log",
)  # fmt: skip
"""Some of what autocast has computed in half precision on a GPU, and in float32."""


@dataclass
class Traffic:
    """Exchanges with the host, by the line of dsctool that they come of.

    waiting: of the uploads, those that the host waits for: they were not asked for with ``non_blocking``.
    """

    reads: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)


class Elsewhere(Tensor):
    """What looks like a tensor of the device, and is computed with as ``here``, its values on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            layout=here.layout,
            device=DEVICE,
            requires_grad=here.requires_grad,
        )
        made.here = here
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of pretend()")


class _Pretending(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors([args, *kwargs.values()])
        there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
        asked = kwargs.get("device")
        if not there and (asked is None or asked.type != NAME):
            return func(*args, **kwargs)
        name = func._schema.name
        if name in _AS_ON_A_GPU:
            with self:
                return _AS_ON_A_GPU[name](*args, **kwargs)
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
        self._check(name, args, there, here)
        goes_there = asked is None or asked.type == NAME
        if name == "aten::copy_":
            goes_there = isinstance(args[0], Elsewhere)
        self._record(name, args, kwargs, there, here, goes_there)
        if asked is not None and asked.type == NAME:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*_here(args), **{key: _here(value) for key, value in kwargs.items()})
        # What is changed in place stays itself.
        return _there(result, {id(tensor.here): tensor for tensor in there}) if goes_there else result

    def _check(self, name: str, args: Any, there: list[Elsewhere], here: list[Tensor]) -> None:
        strangers = [tensor for tensor in here if tensor.dim() > 0]
        indexed = name in _INDEXING and isinstance(args[0], Elsewhere)
        if there and strangers and name not in _COPIES and not indexed:
            shapes = [tuple(tensor.shape) for tensor in strangers]
            raise RuntimeError(f"tensors on two devices in {name}, on the CPU {shapes}, at {_place()}")

    def _record(
        self, name: str, args: Any, kwargs: Any, there: list[Elsewhere], here: list[Tensor], goes_there: bool
    ) -> None:
        traffic = self.traffic
        if there and (reads := _reads(name, args, kwargs, goes_there)):
            traffic.reads[_place()] += reads
        sent = [tensor for tensor in here if tensor.dim() > 0 or name in _COPIES] if goes_there else []
        if sent:
            waits = not (kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2]))
            traffic.uploads[_place()] += len(sent)
            if waits:
                traffic.waiting[_place()] += len(sent)


def _reads(name: str, args: Any, kwargs: Any, goes_there: bool) -> int:
    """How often an operator makes the host wait for values."""
    if name in _WAITS or (name in ("aten::_to_copy", "aten::copy_") and not goes_there):
        return 1
    if name == "aten::repeat_interleave":  # of a tensor of counts
        return kwargs.get("output_size") is None
    if name not in _INDEXING:
        return 0
    masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
    filled = name != "aten::index" and len(masks) == len(args[1]) == 1 and args[2].numel() == 1
    return 0 if filled else len(masks)


@cache
def _is_composite(func: Any) -> bool:
    """Whether an operator is made of others, which are what counts."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _tensors(value: object) -> list[Tensor]:
    """All tensors in lists of lists."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []


def _here(value: Any) -> Any:
    """With the values in place of the tensors of the device."""
    if isinstance(value, Elsewhere):
        return value.here
    return type(value)(_here(part) for part in value) if isinstance(value, list | tuple) else value


def _there(value: Any, known: dict[int, Elsewhere]) -> Any:
    """The reverse of :func:`_here`: the known tensor whose values they are, or a new one."""
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else Elsewhere(value)
    return type(value)(_there(part, known) for part in value) if isinstance(value, list | tuple) else value


def _place() -> str:
    """The innermost line of dsctool."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere" if frame is None else f"{frame.f_code.co_filename[len(_PACKAGE) + 1 :]}:{frame.f_lineno}"


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@contextmanager
def pretend() -> Iterator[Traffic]:
    """Inside, there is :data:`DEVICE`, and what is exchanged with it is on record."""
    _backend()
    traffic = Traffic()
    with _exchanging(), _Pretending(traffic):
        yield traffic


@cache
def _backend() -> list[torch.library.Library]:
    """What stays for the rest of the process: a backend, and how it casts under autocast."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return _autocasting()


@contextmanager
def _exchanging() -> Iterator[None]:
    """Tensors made of Python's numbers, and such made of tensors, are copied: PyTorch hides it from those who look."""
    made, listed = torch.tensor, Tensor.tolist

    def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        values = made(data, dtype=dtype)
        return (values if device is None else values.to(device)).requires_grad_(requires_grad)

    def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        return data.to(device, dtype) if isinstance(data, Tensor) else tensor(data, dtype=dtype, device=device)

    def tolist(self: Tensor) -> Any:
        return listed(self.cpu() if isinstance(self, Elsewhere) else self)

    with (
        patch.object(torch, "tensor", tensor),
        patch.object(Tensor, "tolist", tolist),
        patch.object(torch, "as_tensor", as_tensor),
        patch.object(Tensor, "new_tensor", new_tensor),
    ):
        yield


def _autocasting() -> list[torch.library.Library]:
    """``torch.autocast`` casts on the device as it does on a GPU: PyTorch leaves that to the backend."""
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    library = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for operators, half in ((_HALF_OPERATORS, True), (_FLOAT32_OPERATORS, False)):
        for operator in operators:
            packet, _, overload = operator.partition(".")
            function = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(operator, _cast(function, half=half), "AutocastPrivateUse1")
    return [others, library]


def _cast(function: Callable[..., Any], *, half: bool) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.get_autocast_dtype(NAME) if half else torch.float32

        def converted(value: object) -> object:
            floating = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(wanted) if floating and value.device.type == NAME else value

        with torch._C._ExcludeDispatchKeyGuard(keys):
            return function(
                *(converted(value) for value in args), **{key: converted(value) for key, value in kwargs.items()}
            )

    return cast
