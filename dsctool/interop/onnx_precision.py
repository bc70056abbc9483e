"""ONNX programs of fewer bits: layers with weights compute in float16 or int8, and everything else stays as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

LAYERS = ("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul")
"""Operations that have weights as their second input."""
QUANTISED = tuple(name for name in LAYERS if name != "DeformConv")
"""Those of which onnxruntime has an int8 kernel."""
EXACT = ("Relu", "MaxPool", "Reshape", "Transpose")
"""Operations that give the same whether their result is rounded or what they are given."""
Inputs = Mapping[str, np.ndarray[Any, Any]]
"""What a program is called with, by the names of its inputs."""


def to_float16(model: ir.Model) -> None:
    """Let every layer with weights take, hold and give float16, in place.

    Between layers, values are float32: sums, norms, samples of RoIAlign and all that has to do with boxes keep their
    digits, as under autocast.
    """
    import onnx_ir as ir

    graph, halved = model.graph, dict[str, ir.Value]()
    for node in list(graph):
        follows = node.op_type in EXACT and node.inputs[0] is not None and _before_cast(node.inputs[0]) is not None
        if not (_has_weights(node) or follows):
            continue
        for place, value in enumerate(node.inputs):
            if value is None or value.dtype is not ir.DataType.FLOAT:
                continue
            if value.is_initializer():
                assert value.name is not None
                half = halved.get(value.name) or _half_weights(graph, value)
                halved[value.name] = half
            else:
                half = _before_cast(value) or _cast(graph, value, ir.DataType.FLOAT16, node)
            node.replace_input_with(place, half)
        _give_float32(graph, node)
    for name in halved:
        if not graph.initializers[name].uses():
            del graph.initializers[name]
    _remove_unused_casts(graph)


def _has_weights(node: ir.Node) -> bool:
    return node.op_type in LAYERS and (weights := node.inputs[1]) is not None and weights.is_initializer()


def _half_weights(graph: ir.Graph, value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    assert value.const_value is not None
    numbers = ir.tensor(value.const_value.numpy().astype(np.float16), name=f"{value.name}_float16")
    half = ir.Value(name=numbers.name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=numbers)
    graph.register_initializer(half)
    return half


def _before_cast(value: ir.Value) -> ir.Value | None:
    """The float16 value that ``value`` is in float32, if it is one."""
    import onnx_ir as ir

    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or value.dtype is not ir.DataType.FLOAT:
        return None
    source = producer.inputs[0]
    return source if source is not None and source.dtype is ir.DataType.FLOAT16 else None


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
    import onnx_ir as ir

    cast = ir.node("Cast", [value], attributes={"to": dtype})
    cast.outputs[0].dtype, cast.outputs[0].shape = dtype, value.shape
    graph.insert_before(before, cast)
    return cast.outputs[0]


def _give_float32(graph: ir.Graph, node: ir.Node) -> None:
    """Turn what a node of float16 gives back into float32 for those who use it."""
    import onnx_ir as ir

    given, users = node.outputs[0], list(node.outputs[0].uses())
    given.dtype = ir.DataType.FLOAT16
    cast = ir.node("Cast", [given], attributes={"to": ir.DataType.FLOAT})
    cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, given.shape
    graph.insert_after(node, cast)
    for user, place in users:
        user.replace_input_with(place, cast.outputs[0])
    if given.is_graph_output():
        graph.outputs[graph.outputs.index(given)] = cast.outputs[0]
        given.name, cast.outputs[0].name = f"{given.name}_float16", given.name


def _remove_unused_casts(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if node.op_type == "Cast" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def write_int8(source: Path, target: Path, seen: Iterator[Inputs]) -> None:
    """Write a float32 program with its layers in int8: weights by channel, activations by the range that they have.

    source: what :func:`~dsctool.interop.exporting.write_onnx` wrote. seen: what it is called with, to see the ranges.
    Deformable convolutions stay float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Seen(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return dict(found) if (found := next(seen, None)) is not None else None

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared, load_external_data=False).graph
        weights = {each.name for each in graph.initializer}
        layers = [node.name for node in graph.node if node.op_type in QUANTISED and node.input[1] in weights]
        quantize_static(
            prepared,
            target,
            Seen(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=layers,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
