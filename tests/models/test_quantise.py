"""Static int8 of a small graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra `train`")

from numpy.typing import NDArray  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from engines.onnx_cpu import OnnxCpu  # noqa: E402
from models.quantise import Product, choose, compensate, quantise  # noqa: E402

pytestmark = pytest.mark.train
CHANCE = np.random.default_rng(7)
WORDS, WIDTH, OUT = 300, 64, 256


def graph() -> Any:
    """A word table, one channel stretched to outliers, one product, and a sum over the words."""
    table = CHANCE.normal(size=(WORDS, WIDTH)).astype(np.float32)
    stretch = np.ones(WIDTH, np.float32)
    stretch[3] = 40
    weight = CHANCE.normal(size=(WIDTH, OUT)).astype(np.float32)
    weight[3] /= 40
    constants = {
        "table": table,
        "stretch": stretch,
        "weight": weight,
        "bias": CHANCE.normal(size=OUT).astype(np.float32),
    }
    constants["axis"] = np.array([1])  # type: ignore[assignment]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], "gather"),
        helper.make_node("Mul", ["words", "stretch"], ["stretched"], "mul"),
        helper.make_node("MatMul", ["stretched", "weight"], ["product"], "matmul"),
        helper.make_node("Add", ["product", "bias"], ["sum"], "add"),
        helper.make_node("ReduceSum", ["sum", "axis"], ["logits"], "reduce", keepdims=0),
    ]
    put = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info(n, 7, ["n", "l"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", 1, ["n", OUT])]
    made = helper.make_graph(nodes, "g", inputs, outputs, put)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def batch(rows: int) -> dict[str, NDArray[np.int64]]:
    ids = CHANCE.integers(0, WORDS, (rows, 12))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def product(x: NDArray[np.uint8], weight: NDArray[np.int8]) -> NDArray[np.float32]:
    """The integer product as ONNX Runtime computes it on this processor."""
    constants = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.ones(weight.shape[1], np.float32), "columns"),
    ]
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "scale", "columns"], ["y"], domain="com.microsoft"
    )
    inputs = [helper.make_tensor_value_info("x", 2, ["n", len(weight)])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", weight.shape[1]])]
    made = helper.make_graph([node], "g", inputs, outputs, constants)
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=domains, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return answer


def test_int8_keeps_the_answers_and_a_quarter_of_the_bytes() -> None:
    """In spite of a channel of outliers the answers stay within three per cent, and the graph shrinks."""
    whole = graph()
    small = onnx.ModelProto()
    small.CopyFrom(whole)
    quantise(small, [batch(16)])
    inputs = batch(8)
    truth = OnnxCpu(whole.SerializeToString(), "fp32", 128).infer(inputs)
    found = OnnxCpu(small.SerializeToString(), "int8", 128).infer(inputs)
    assert np.linalg.norm(found - truth) < 0.03 * np.linalg.norm(truth)
    assert small.ByteSize() < 0.35 * whole.ByteSize()
    assert {node.op_type for node in small.graph.node} >= {"MatMulIntegerToFloat", "QuantizeLinear"}


def test_no_pair_of_weights_saturates() -> None:
    """Two neighbouring rows times the largest input fit 16 bits, and weights use more than seven bits."""
    small = graph()
    quantise(small, [batch(16)])
    (weight,) = [numpy_helper.to_array(put) for put in small.graph.initializer if put.name == "weight.int8"]
    wide = weight.astype(int)
    sums = np.maximum(np.maximum(wide[::2], 0) + np.maximum(wide[1::2], 0),
                      np.maximum(-wide[::2], 0) + np.maximum(-wide[1::2], 0))  # fmt: skip
    assert 255 * sums.max() <= 32767
    assert 64 < np.abs(wide).max() <= 127
    brightest = np.full((3, WIDTH), 255, np.uint8)
    assert (product(brightest, weight) == brightest.astype(int) @ wide).all()


def test_rounding_makes_up_for_what_it_loses() -> None:
    """On inputs that hang together, the compensated weight loses less than the nearest integers do."""
    mixing = CHANCE.normal(size=(8, WIDTH)).astype(np.float32)
    seen, held = (
        CHANCE.normal(size=(2000, 8)).astype(np.float32) @ mixing
        + CHANCE.normal(size=(2000, WIDTH)).astype(np.float32) * 0.3
        for _ in range(2)
    )
    weight = CHANCE.normal(size=(WIDTH, OUT)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    step = Product(node, node, weight, np.zeros(OUT, np.float32))
    choice = choose(step, seen)
    rounded = compensate(step, choice, seen)
    smoothed = weight if choice.smooth is None else weight * choice.smooth[:, None]
    nearest = np.rint(smoothed / rounded.columns) * rounded.columns
    even = held if choice.smooth is None else held / choice.smooth
    truth = held @ weight
    lost = np.square(even @ (rounded.weight * rounded.columns) + rounded.bias - truth).mean()
    assert lost < 0.8 * np.square(even @ nearest - truth).mean()


def test_rare_outliers_cost_the_others_nothing() -> None:
    """A few channels that are seldom large do not coarsen the rest: what they have beyond the range is added."""
    table = CHANCE.normal(size=(WORDS, WIDTH)).astype(np.float32)
    table[:10, 5] += 60
    table[10:20, 9] -= 40
    whole = graph()
    for put in whole.graph.initializer:
        if put.name in ("table", "stretch"):
            put.CopyFrom(
                numpy_helper.from_array(
                    table if put.name == "table" else np.ones(WIDTH, np.float32), put.name
                )
            )
    small = onnx.ModelProto()
    small.CopyFrom(whole)
    quantise(small, [batch(64)])
    (which,) = [numpy_helper.to_array(put) for put in small.graph.initializer if put.name == "weight.which"]
    assert {5, 9} <= set(which.tolist())
    inputs = batch(8)
    inputs["input_ids"][:, 0] = np.arange(8) * 2  # outliers of both signs
    truth = OnnxCpu(whole.SerializeToString(), "fp32", 128).infer(inputs)
    found = OnnxCpu(small.SerializeToString(), "int8", 128).infer(inputs)
    assert np.linalg.norm(found - truth) < 0.03 * np.linalg.norm(truth)


def test_a_product_named_exact_stays() -> None:
    """Sensitive products can be kept in float32."""
    small = graph()
    quantise(small, [batch(16)], exact=frozenset({"weight"}))
    assert "MatMul" in {node.op_type for node in small.graph.node}
