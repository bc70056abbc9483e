"""What is registered with PyTorch: the operators pass its own checks, and programs that hold them can be exported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from dsctool.models.backbones.sac import SwitchableAtrousConv
from dsctool.ops.deform_conv import (
    deformable_conv,
    gather_samples,
    gather_samples_table_grad,
    gather_samples_weight_grad,
)
from dsctool.ops.roi_align import pyramid_roi_align, roi_align, roi_levels
from dsctool.ops.roi_align_cpu import sparse_roi_align, sparse_roi_align_backward
from dsctool.ops.roi_align_operator import aligned, aligned_backward, dense_roi_align, dense_roi_align_backward
from tests.ops.test_roi_align import some_rois

STRIDES = (4, 8, 16, 32)


def pyramid(device: torch.device, *, trains: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 128 // s, 160 // s, generator=generator).to(device) for s in STRIDES]
    return [x.contiguous(memory_format=torch.channels_last).requires_grad_(trains) for x in maps]


@pytest.mark.parametrize(("pool", "samples"), [(1, 0), (2, 0), (2, 2)])
@pytest.mark.parametrize("keep", [False, True])
def test_roi_align_passes_opcheck(keep: bool, pool: int, samples: int, device: torch.device) -> None:
    rois = some_rois(9).to(device)
    levels = roi_levels(rois[:, 1:], num_levels=4)
    floats = [float(s) for s in STRIDES]
    inputs = (pyramid(device), rois, levels, 7, floats, pool, samples, keep)
    # A matrix that is kept has a size that depends on the data, of which the program of the last check cannot know.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(aligned, inputs, test_utils=checks[:3] if keep else checks)
    _, cells, weights, rows = aligned(*inputs)
    shapes = [side for s in STRIDES for side in (2, 128 // s, 160 // s)]
    grad = torch.randn(9, 3, 7, 7, device=device)
    torch.library.opcheck(aligned_backward, (grad, rois, levels, cells, weights, rows, shapes, floats, pool, samples))


def test_gathering_passes_opcheck(device: torch.device) -> None:
    table, weights = (torch.randn(n, 4, device=device, requires_grad=True) for n in (20, 7))
    cells = torch.randint(20, (7, 4), dtype=torch.int32, device=device)
    torch.library.opcheck(gather_samples, (table, weights, cells))
    grad, table, weights = torch.randn(7, 4, device=device), table.detach(), weights.detach()
    torch.library.opcheck(gather_samples_table_grad, (grad, weights, cells, 20))
    torch.library.opcheck(gather_samples_weight_grad, (grad, table, cells))


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize(("count", "pool", "samples"), [(30, 1, 0), (30, 2, 0), (0, 1, 0), (30, 1, 2), (30, 2, 2)])
def test_the_kernel_of_other_devices_gives_the_same(levels: int, count: int, pool: int, samples: int) -> None:
    rois, features = some_rois(30)[:count], pyramid(torch.device("cpu"), trains=False)[:levels]
    level = roi_levels(rois[:, 1:], num_levels=levels)
    strides = STRIDES[:levels]
    ours, *matrix = sparse_roi_align(features, rois, level, 7, strides, pool, samples, True)
    theirs, *nothing = dense_roi_align(features, rois, level, 7, strides, pool, samples, True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.stride() == theirs.stride()
    grad, shapes = torch.randn_like(ours), [(x.shape[0], x.shape[2], x.shape[3]) for x in features]
    a = sparse_roi_align_backward(grad, rois, level, (matrix[0], matrix[1], matrix[2]), shapes, strides, pool, samples)
    flat = [side for shape in shapes for side in shape]
    b = dense_roi_align_backward(grad, rois, level, nothing[0], nothing[1], nothing[2], flat, strides, pool, samples)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("pyramidal", [False, True])
def test_roi_align_exports_for_any_number_of_rois(pyramidal: bool, strict: bool) -> None:
    features = pyramid(torch.device("cpu"), trains=False)

    def pooled(rois: Tensor, *maps: Tensor) -> Tensor:
        if pyramidal:
            return pyramid_roi_align(maps, rois, output_size=7, strides=STRIDES)
        return roi_align(maps[0], rois, output_size=7, stride=4, pool=2)

    shapes = {"inputs": ({0: Dim("rois", min=2)}, *({} for _ in features))}
    program = torch.export.export(Call(pooled), (some_rois(9), *features), dynamic_shapes=shapes, strict=strict)
    assert "dsctool." not in str(program.graph)  # operators that others have, for programs that run elsewhere
    for count in (3, 9, 40):
        rois = some_rois(count)
        torch.testing.assert_close(program.module()(rois, *features), pooled(rois, *features))


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution_exports_for_any_size(groups: int) -> None:
    def convolved(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return deformable_conv(x, offset, weight, stride=1, padding=1, dilation=1, groups=groups)

    def inputs(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = ((2, 8, height, width), (2, 18, height, width), (6, 8 // groups, 3, 3))
        x, offset, weight = (torch.randn(shape, generator=generator) for shape in shapes)
        return x, offset, weight

    sides = {2: Dim("height", min=4), 3: Dim("width", min=4)}
    program = torch.export.export(Call(convolved), inputs(9, 12), dynamic_shapes={"inputs": (sides, sides, {})})
    for size in ((9, 12), (20, 7)):
        torch.testing.assert_close(program.module()(*inputs(*size)), convolved(*inputs(*size)))


@pytest.mark.parametrize("deformable", [False, True])
def test_switchable_atrous_convolution_exports(deformable: bool) -> None:
    torch.manual_seed(0)
    module = SwitchableAtrousConv(8, 6, kernel_size=3, stride=2, deformable=deformable).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 8, 12, 16)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))


def test_training_steps_trace_too() -> None:
    """Forward and backward as one graph, which holds the operators of both."""
    features = pyramid(torch.device("cpu"))

    def gradient(feature: Tensor, rois: Tensor) -> Tensor:
        pooled = torch.compile(lambda x, r: roi_align(x, r, output_size=7, stride=4), backend="aot_eager")
        return torch.autograd.grad(pooled(feature, rois).square().sum(), feature)[0]

    expected = torch.autograd.grad(
        roi_align(features[0], some_rois(9), output_size=7, stride=4).square().sum(), features[0]
    )
    torch.testing.assert_close(gradient(features[0], some_rois(9)), expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "schema"),
    [
        (
            torch.ops.aten._embedding_bag_per_sample_weights_backward.default,
            "(Tensor grad, Tensor weight, Tensor indices, Tensor offsets, Tensor offset2bag, int mode, "
            "int padding_idx=-1) -> Tensor",
        ),
        (
            torch.ops.torchvision._roi_align_backward.default,
            "(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
            "SymInt batch_size, SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) "
            "-> Tensor",
        ),
    ],
    ids=["embedding_bag", "roi_align"],
)
def test_private_operators_are_still_there(operator: torch._ops.OpOverload, schema: str) -> None:
    """The gradients of ops/sparse.py and ops/roi_align_operator.py rest on these; they may go without notice."""
    assert str(operator._schema).partition("(")[2] == schema.removeprefix("(")
