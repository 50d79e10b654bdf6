"""Explicit int8 for TensorRT: QuantizeLinear and DequantizeLinear around the large products of a half-precision graph.

Scales are symmetric, as TensorRT wants them: one for a product's input, chosen on calibration texts by the error of
its output, and one for each column of its weights. The weights stay in the half-precision graph's own file, which this
graph names as its data: a bundle holds them once, and TensorRT folds their rounding when it builds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engines.engine import Arrays

CLIPS = (1.0, 0.85, 0.7, 0.5, 0.35)  # the share of the seen range that is kept
SMALLEST = 1 << 12  # weights; a smaller product (the head) stays in half precision
SAMPLE = 384  # tokens on which a scale is judged
WORST = 0.04  # the largest relative error of a product's output; one that has more stays in half precision


def with_scales(half: onnx.ModelProto, calibration: Iterable[Arrays]) -> onnx.ModelProto:
    """The graph with its large products in int8, complete; `half` stays as it is."""
    graph = onnx.ModelProto()
    graph.CopyFrom(half)
    constants = {put.name: put for put in graph.graph.initializer}
    products = [
        node
        for node in graph.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in constants
        and int(np.prod(constants[node.input[1]].dims)) >= SMALLEST
    ]
    seen = _observe(half, sorted({node.input[0] for node in products}), calibration)
    before: dict[str, list[onnx.NodeProto]] = {}
    for node in products:
        source, name = node.input
        weight = numpy_helper.to_array(constants[name]).astype(np.float32)
        columns = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-7).astype(np.float16)
        scale, error = _scale(seen[source], weight, columns.astype(np.float32))
        if error > WORST:
            continue
        before[node.name] = [
            *_pair(graph, source, f"{name}.input", np.array(scale), None),
            *_pair(graph, name, f"{name}.weight", columns, 1),
        ]
        node.input[0], node.input[1] = f"{name}.input.back", f"{name}.weight.back"
    nodes = [new for node in graph.graph.node for new in (*before.get(node.name, ()), node)]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.checker.check_model(graph)
    return graph


def _scale(x: NDArray[np.float32], weight: NDArray[np.float32], columns: NDArray[np.float32]) -> Any:
    """The scale with the least error of the product's output, and that error relative to the output."""
    truth = x @ weight
    rounded = np.clip(np.rint(weight / columns), -127, 127) * columns
    best = (np.float16(1), np.inf)
    for clip in CLIPS:
        scale = np.float16(max(float(np.abs(x).max()) * clip / 127, 1e-6))
        found = (np.clip(np.rint(x / np.float32(scale)), -128, 127) * np.float32(scale)) @ rounded
        error = float(np.linalg.norm(found - truth) / max(float(np.linalg.norm(truth)), 1e-9))
        if error < best[1]:
            best = (scale, error)
    return best


def _pair(
    graph: onnx.ModelProto, source: str, name: str, scale: NDArray[np.float16], axis: int | None
) -> list[onnx.NodeProto]:
    zero = np.zeros(scale.shape, np.int8)
    graph.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float16), f"{name}.scale"))
    graph.graph.initializer.append(numpy_helper.from_array(zero, f"{name}.zero"))
    extra = [f"{name}.scale", f"{name}.zero"]
    options: dict[str, Any] = {} if axis is None else {"axis": axis}
    return [
        helper.make_node("QuantizeLinear", [source, *extra], [f"{name}.int8"], f"{name}.Quantize", **options),
        helper.make_node(
            "DequantizeLinear", [f"{name}.int8", *extra], [f"{name}.back"], f"{name}.Dequantize", **options
        ),
    ]


def _observe(
    half: onnx.ModelProto, names: list[str], calibration: Iterable[Arrays]
) -> dict[str, NDArray[np.float32]]:
    """A sample of the tokens at the named places."""
    probe = onnx.ModelProto()
    probe.CopyFrom(half)
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for batch in calibration if names else ():
        real = batch["attention_mask"].astype(bool)
        for name, found in zip(names, session.run(names, dict(batch)), strict=True):
            seen[name].append(found[real].astype(np.float32))
    sampled = {}
    for name, found in seen.items():
        tokens = np.concatenate(found)
        spread = np.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens)), dtype=int)
        sampled[name] = tokens[np.append(spread, np.abs(tokens).max(axis=1).argmax())]
    return sampled


def completed(graph: bytes, content: bytes) -> onnx.ModelProto:
    """The graph of `sharing` with its constants inside again."""
    whole = onnx.load_from_string(graph)
    for put in whole.graph.initializer:
        where = {entry.key: entry.value for entry in put.external_data}
        if where:
            start = int(where["offset"])
            put.raw_data = content[start : start + int(where["length"])]
            del put.external_data[:]
            put.data_location = onnx.TensorProto.DEFAULT
    return whole


def sharing(graph: onnx.ModelProto, content: bytes, file: str) -> bytes:
    """The graph's bytes, its large constants named as places in `content`, the bytes of the bundle's file `file`.

    A constant that `content` does not hold stays inside.
    """
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    for put in small.graph.initializer:
        where = content.find(put.raw_data) if len(put.raw_data) >= SMALLEST else -1
        if where < 0:
            continue
        length = len(put.raw_data)
        put.ClearField("raw_data")
        put.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", where), ("length", length)):
            entry = put.external_data.add()
            entry.key, entry.value = key, str(value)
    named: bytes = small.SerializeToString()
    return named
