"""INT8 arithmetic against NumPy, on graphs of one node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augkd.models.onnx_graph import session
from augkd.ship.onnx_int8 import quantise, to_int8

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def graph(nodes: list[Any], tensors: dict[str, Any], kind: int, shape: list[Any]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    content = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(session(model.SerializeToString(), 1).run(None, {"x": x})[0])


@pytest.mark.parametrize("gemm", [False, True])
def test_a_product_is_exact_in_integers(gemm: bool) -> None:
    """Each token and each output column has its own scale; a product of the integers is exact."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=size).astype(np.float32) for size in ((5, 8), (8, 4), (4,)))
    x[0] *= 1000  # an outlier, which must not affect the other rows
    x[1] = 0
    node = (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        if gemm
        else helper.make_node("MatMul", ["x", "w"], ["y"])
    )
    tensors = {"w": w.T.copy() if gemm else w, **({"b": b} if gemm else {})}
    y = run(quantise(graph([node], tensors, TensorProto.FLOAT, ["n", 8])), x)

    token_scale = np.maximum(np.abs(x).max(1, keepdims=True), 1e-30) / 127
    integers = np.floor(x / token_scale + 0.5)
    column_scale = np.abs(w).max(0) / 64
    expected = (integers @ np.rint(w / column_scale)) * token_scale * column_scale + (b if gemm else 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y[1:], (x @ w + (b if gemm else 0))[1:], atol=0.1)


def test_no_two_products_overflow_16_bits() -> None:
    """On a CPU without VNNI, ONNX Runtime adds two of them in 16 bits, and a sum that does not fit saturates."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.full((8, 4), 3.0, dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = quantise(graph([node], {"w": weights}, TensorProto.FLOAT, ["n", 8]))
    integers = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    assert [int(np.abs(values).max()) for values in integers] == [64]
    assert 255 * 64 * 2 < 2**15
    x = np.full((1, 8), 5.0, dtype=np.float32)
    np.testing.assert_allclose(run(model, x), x @ weights, rtol=1e-5)


def test_a_table_is_rounded_by_row() -> None:
    from onnx import TensorProto, helper

    table = np.random.default_rng(0).normal(size=(128, 64)).astype(np.float32)
    table[3] *= 1000
    table[4] = 0
    ids = np.array([[3, 4], [5, 127]])
    node = helper.make_node("Gather", ["t", "x"], ["y"], axis=0)
    model = quantise(graph([node], {"t": table}, TensorProto.INT64, ["n", "m"]))
    rows = run(model, ids)
    half_a_scale = np.abs(table[ids]).max(-1, keepdims=True) / 254
    assert (np.abs(rows - table[ids]) <= half_a_scale * 1.0001).all()
    assert (rows[0, 1] == 0).all()
    assert len(model.SerializeToString()) < table.nbytes / 3  # a quarter, the scales and a few names


def test_rounding_is_within_half_a_scale_and_spans_127() -> None:
    integers, scale = to_int8(np.array([[1.0, -4.0, 2.01], [0.0, 0.0, 0.0]], dtype=np.float32), axis=1)
    assert integers.tolist() == [[32, -127, 64], [0, 0, 0]]
    np.testing.assert_allclose(scale, [[4 / 127], [1.0]], rtol=1e-6)


def test_a_table_row_that_is_multiplied_keeps_both_of_its_quantisations() -> None:
    """A table's row goes straight into a product: its integers and the product's must not share a name."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    table, weights = rng.normal(size=(128, 64)).astype(np.float32), rng.normal(size=(64, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["t", "x"], ["rows"], axis=0),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    model = quantise(graph(nodes, {"t": table, "w": weights}, TensorProto.INT64, ["n"]))
    ids = np.array([3, 127, 0])
    np.testing.assert_allclose(run(model, ids), table[ids] @ weights, atol=1.0)
