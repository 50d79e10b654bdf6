"""Static int8 of a small graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra `train`")

from numpy.typing import NDArray  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from engines.onnx_cpu import OnnxCpu  # noqa: E402
from models.quantise import quantise  # noqa: E402

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


def test_weights_use_seven_bits() -> None:
    """No weight is beyond 63, so that sums of two products fit 16 bits on every processor."""
    small = graph()
    quantise(small, [batch(16)])
    (weight,) = [numpy_helper.to_array(put) for put in small.graph.initializer if put.name == "weight.int8"]
    assert np.abs(weight.astype(int)).max() == 63


def test_a_product_named_exact_stays() -> None:
    """Sensitive products can be kept in float32."""
    small = graph()
    quantise(small, [batch(16)], exact=frozenset({"weight"}))
    assert "MatMul" in {node.op_type for node in small.graph.node}
