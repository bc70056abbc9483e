"""Layers of ONNX programs in float16 and int8, on programs of a few nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dsctool.interop.onnx_precision import to_float16, write_int8

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(nodes: list[Any], weights: dict[str, Array], shape: list[int | str], path: Path) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key="dsctool", value="about")
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def two_convolutions(path: Path) -> Path:
    """Convolutions of the same weights around a ReLU, of which one gives to two users; and numbers beside them."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w", "b"], ["first"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["relu"]),
        helper.make_node("Conv", ["relu", "w", "b"], ["second"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["second", "first"], ["y"]),
    ]
    weights = {"w": random(4, 4, 3, 3) / 6, "b": random(4), "scale": np.float32([1 / 3])}
    return model_of(nodes, weights, [1, 4, "h", "w"], path)


def outputs(path: Path, x: Array) -> Array:
    found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert found.dtype == np.float32
    return np.asarray(found)


def test_layers_compute_in_float16_and_nothing_else(tmp_path: Path) -> None:
    source, target = two_convolutions(tmp_path / "float32.onnx"), tmp_path / "float16.onnx"
    model = ir.load(source)
    to_float16(model)
    ir.save(model, target)
    onnx.checker.check_model(onnx.load(target), full_check=True)

    graph = onnx.load(target).graph
    types = {each.name: each.data_type for each in graph.initializer}
    assert Counter(types.values()) == {TensorProto.FLOAT16: 2, TensorProto.FLOAT: 1}  # shared weights are there once
    assert types["scale"] == TensorProto.FLOAT
    kinds = [node.op_type for node in graph.node]
    # Into the first; out of both for the sum, which is of float32; the ReLU between them needs none.
    assert Counter(kinds) == {"Mul": 1, "Conv": 2, "Relu": 1, "Add": 1, "Cast": 3}

    x = random(1, 4, 9, 7, seed=1)
    half, full = outputs(target, x), outputs(source, x)
    assert 0 < np.abs(half - full).max() < 5e-3


def test_a_product_of_two_values_keeps_its_digits(tmp_path: Path) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    source = model_of(nodes, {}, [3, 3], tmp_path / "float32.onnx")
    model = ir.load(source)
    to_float16(model)
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul"]


def test_int8_takes_ranges_from_what_it_sees(tmp_path: Path) -> None:
    source, target = two_convolutions(tmp_path / "float32.onnx"), tmp_path / "int8.onnx"
    pictures = [random(1, 4, 8, 8, seed=seed) for seed in range(8)]
    write_int8(source, target, iter([{"x": each} for each in pictures]))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["float32.onnx", "int8.onnx"]
    model = onnx.load(target)
    assert [(each.key, each.value) for each in model.metadata_props if each.key == "dsctool"] == [("dsctool", "about")]
    weights = [each for each in model.graph.initializer if each.dims == [4, 4, 3, 3]]
    assert {each.data_type for each in weights} == {TensorProto.INT8}

    seen, full = (outputs(path, pictures[0]) for path in (target, source))
    step = (full.max() - full.min()) / 255
    assert 0 < np.abs(seen - full).max() < 4 * step
    far, wide = (outputs(path, 100 * pictures[0]) for path in (target, source))
    assert np.abs(far).max() < np.abs(wide).max() / 10  # beyond the ranges, values are cut off


def test_deformable_convolutions_stay_as_they_are_in_int8(tmp_path: Path) -> None:
    nodes = [helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], pads=[1, 1, 1, 1])]
    weights = {"w": random(4, 4, 3, 3), "offset": random(1, 18, 6, 6, seed=2)}
    source, target = model_of(nodes, weights, [1, 4, 6, 6], tmp_path / "float32.onnx"), tmp_path / "other.onnx"
    x = random(1, 4, 6, 6)
    write_int8(source, target, iter([{"x": x}]))
    np.testing.assert_array_equal(outputs(target, x), outputs(source, x))
    model = ir.load(source)
    to_float16(model)
    ir.save(model, target)
    np.testing.assert_allclose(outputs(target, x), outputs(source, x), atol=0.05)
