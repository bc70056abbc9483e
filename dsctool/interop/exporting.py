"""Writing a detector as a program that runs without this package: ONNX, or PyTorch's own pt2."""

from __future__ import annotations

import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from dsctool.errors import DsctoolError
from dsctool.interop.export_file import (
    FILE,
    KEY,
    LEAST,
    STRIDE,
    ExportedFile,
    ExportInput,
    LayerPrecision,
    outputs_of,
)
from dsctool.interop.onnx_precision import to_float16
from dsctool.models.detector import Detector
from dsctool.models.exportable import Exportable, ExportablePicture

LARGEST = 16_384
"""Pixels a side of the largest canvas that a program takes."""
OPSET = 20
"""Of ONNX; DeformConv is there from 19 on."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where viewers of ONNX files look for the module that a node belongs to."""
MISSING = "needs what is not installed: pip install 'dsctool[export]' (onnx, onnxscript >= 0.7.1, onnxruntime >= 1.25)"


def require_onnx() -> None:
    """See that what ONNX files take is there.

    Raises:
        DsctoolError: it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        raise DsctoolError(f"ONNX {MISSING}")


def described(detector: Detector, form: ExportInput, precision: LayerPrecision = "float32") -> ExportedFile:
    """What the file of a detector says of itself: with what a program has not left out, and sizes that it takes."""
    data = detector.config.data
    resize = data.test_resize
    if form.canvas is not None:
        short, long = min(*data.test_resize.short_sides, *form.canvas), min(resize.long_side, max(form.canvas))
        resize = resize.model_copy(update={"short_sides": (short,), "long_side": long})
    changes = {"tta": None, "pad_divisor": math.lcm(data.pad_divisor, STRIDE), "test_resize": resize}
    config = detector.config.model_copy(update={"data": data.model_copy(update=changes)})
    return ExportedFile(form, config, detector.categories, precision)


def traced(detector: Detector, form: ExportInput) -> torch.export.ExportedProgram:
    """The program of a detector, which is on the CPU in eval mode.

    Raises:
        ConfigError: it does something that only Python can, by the key of its configuration.
    """
    inputs = example_inputs(detector, form)
    program = program_of(detector, form)
    with torch.no_grad(), quiet():
        program(*inputs)  # keeps what is derived from weights, which the program then has as constants
        shapes: dict[str, dict[int, Any] | None] | None = None
        if form.pixels == "picture":
            shapes = {"images": {2: torch.export.Dim("rows", min=2), 3: torch.export.Dim("columns", min=2)}}
        elif form.canvas is None:
            sides = [
                STRIDE * torch.export.Dim(name, min=LEAST // STRIDE, max=LARGEST // STRIDE)
                for name in ("rows", "columns")
            ]
            shapes = {"images": {2: sides[0], 3: sides[1]}, "sizes": None, "original_sizes": None}
        made = torch.export.export(program, inputs, dynamic_shapes=shapes, strict=False)
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return made


def program_of(detector: Detector, form: ExportInput) -> nn.Module:
    """What is traced.

    Raises:
        ConfigError: the detector does something that only Python can, by the key of its configuration.
    """
    if form.pixels != "picture":
        return Exportable(detector).eval()
    assert form.canvas is not None
    resize = detector.config.data.test_resize
    return ExportablePicture(detector, limits=(resize.short_sides[0], resize.long_side), canvas=form.canvas).eval()


def example_inputs(detector: Detector, form: ExportInput) -> tuple[Tensor, ...]:
    """Images of noise in the form of the program, always the same, smaller than their canvas."""
    height, width = form.canvas or (6 * STRIDE, 8 * STRIDE)
    noise = torch.Generator().manual_seed(0)
    channels = len(detector.config.data.mean)
    images = torch.randint(0, 256, (form.batch, channels, height, width), generator=noise, dtype=torch.uint8)
    if form.pixels == "picture":
        return (images,)
    sizes = torch.tensor([[height - 3, width - 2]] * form.batch)
    return images if form.pixels == "uint8" else images / 128.0 - 1.0, sizes, 2 * sizes


def write_pt2(program: torch.export.ExportedProgram, about: ExportedFile, file: IO[bytes]) -> None:
    """Write a program as ``torch.export`` has it.

    Raises:
        OSError: the file takes no more.
    """
    content = io.BytesIO()  # first: PyTorch ends the process where a file takes no more
    with quiet():
        torch.export.save(program, content, extra_files={FILE: about.to_json()})
    file.write(content.getbuffer())


def write_onnx(program: torch.export.ExportedProgram, about: ExportedFile, path: Path, *, opset: int = OPSET) -> None:
    """Write a program as ONNX, in one file; with float16 layers where ``about`` says so.

    Raises:
        DsctoolError: packages are missing.
    """
    require_onnx()
    from onnxscript.optimizer import fold_constants

    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=list(about.input.inputs),
            output_names=outputs_of(about.config),
            custom_translation_table={torch.ops.aten.sort.stable: _sort_stable},
            verbose=False,
        )
    assert made is not None
    fold_constants(made.model, onnx_shape_inference=False, should_fold=_sums_weights)
    if about.precision == "float16":
        to_float16(made.model)
    for node in made.model.graph:  # a third of a small file
        for key in node.metadata_props.keys() - {SCOPES}:
            del node.metadata_props[key]
    made.model.graph.metadata_props.clear()
    made.model.metadata_props[KEY] = about.to_json()
    made.save(path)


def _sums_weights(node: Any) -> bool | None:
    """Whether a node of ONNX makes weights of weights, as those of switchable convolutions; None: the usual rule."""
    return True if node.op_type == "Add" and all(each.is_initializer() for each in node.inputs) else None


def _sort_stable(self: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten::sort.stable``, which the exporter does not know: equal values come in the order of their places."""
    from onnxscript import opset18 as ops

    axis = dim if dim >= 0 else len(self.shape) + dim
    return ops.TopK(self, ops.Shape(self, start=axis, end=axis + 1), axis=axis, largest=int(descending), sorted=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch, the converter and onnxruntime say about their own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
