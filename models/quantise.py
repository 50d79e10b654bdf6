"""Int8 for the CPU: every large matrix product of a float32 graph becomes an integer one with fixed scales.

Dynamic quantisation takes one scale for a whole batch, so a headline's answer depends on its neighbours, and one
outlier costs all of them precision. Here the scales are fixed beforehand on calibration texts: an answer depends on
its own text only, and nothing is measured at run time. Outlier channels are smoothed into the weights
(SmoothQuant, Xiao et al. 2023); smoothing and clipping are chosen per product by the error of its output.
Weights use seven of their eight bits: processors without VNNI add pairs of products in 16 bits, which would
saturate, and answers would differ between machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engines.engine import Arrays

Floats = NDArray[np.float32]

WEIGHT_LEVELS = 63  # seven bits, see above
SMOOTHINGS = (0.0, 0.3, 0.5, 0.7)  # the exponent alpha of SmoothQuant; 0 is none
CLIPS = (1.0, 0.85, 0.7, 0.55, 0.4)  # the share of the seen range that is kept
WORTH_A_PASS = 0.8  # smoothing costs a pass over the input: its error must be at most this share
SMALLEST = 1 << 14  # weights; a smaller product (the head) stays in float32
SAMPLE = 512  # tokens on which a choice is judged, and with them
EXTREMES = 64  # channels whose largest and smallest token is added


@dataclass
class Product:
    """One `x @ weight + bias` of the graph, with tokens that were seen at its input."""

    matmul: onnx.NodeProto
    add: onnx.NodeProto
    weight: Floats
    bias: Floats
    seen: Floats


@dataclass(frozen=True)
class Choice:
    """How a product is quantised: x -> round(x / smooth / scale) + zero."""

    smooth: Floats | None
    scale: np.float32
    zero: int
    weight: NDArray[np.int8]
    columns: Floats
    error: float


def quantise(
    graph: onnx.ModelProto, calibration: Iterable[Arrays], exact: frozenset[str] = frozenset()
) -> None:
    """Replace in `graph`, in place, the products with constant weights, and the word table.

    `calibration` are batches of model inputs; products whose weight is named in `exact` stay in float32.
    """
    del graph.graph.value_info[:]
    products = list(_products(graph, exact))
    seen = _observe(graph, sorted({product.matmul.input[0] for product in products}), calibration)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for product in products:
        product.seen = seen[product.matmul.input[0]]
        replaced[product.matmul.name] = _integer_nodes(graph, product, choose(product))
        replaced[product.add.name] = []
    replaced.update(_integer_table(graph))
    nodes = [new for node in graph.graph.node for new in replaced.get(node.name, [node])]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [put for put in graph.graph.initializer if put.name in used]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    if all(found.domain != "com.microsoft" for found in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.checker.check_model(graph)


def choose(product: Product) -> Choice:
    """The smoothing and clipping with the least squared error of the product's output on what was seen."""
    truth = product.seen @ product.weight
    plain = min((_try(product, truth, 0.0, clip) for clip in CLIPS), key=lambda found: found.error)
    smooth = min(
        (_try(product, truth, alpha, clip) for alpha in SMOOTHINGS[1:] for clip in CLIPS),
        key=lambda found: found.error,
    )
    return smooth if smooth.error <= WORTH_A_PASS * plain.error else plain


def _try(product: Product, truth: Floats, alpha: float, clip: float) -> Choice:
    smooth: Floats | None = None
    x, weight = product.seen, product.weight
    if alpha:
        ranges = np.maximum(np.abs(x).max(axis=0), 1e-5)
        rows = np.maximum(np.abs(weight).max(axis=1), 1e-5)
        smooth = (ranges**alpha / rows ** (1 - alpha)).astype(np.float32)
        x, weight = x / smooth, weight * smooth[:, None]
    low, high = float(x.min()) * clip, float(x.max()) * clip
    low, high = min(low, 0.0), max(high, 1e-6)
    scale = np.float32((high - low) / 255)
    zero = round(-low / float(scale))
    columns = (np.maximum(np.abs(weight).max(axis=0), 1e-8) / WEIGHT_LEVELS).astype(np.float32)
    integers = np.rint(weight / columns).astype(np.int8)
    rounded = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    answer = (rounded.astype(np.float32) @ integers.astype(np.float32)) * (scale * columns)
    return Choice(smooth, scale, zero, integers, columns, float(np.square(answer - truth).mean()))


def _products(graph: onnx.ModelProto, exact: frozenset[str]) -> Iterator[Product]:
    constants = {put.name: put for put in graph.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in constants or node.input[1] in exact:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        (add,) = readers[node.output[0]]
        biases = [name for name in add.input if name in constants]
        if weight.size >= SMALLEST and add.op_type == "Add" and biases:
            bias = numpy_helper.to_array(constants[biases[0]])
            yield Product(node, add, weight, bias, np.zeros((0, len(weight)), np.float32))


def _observe(graph: onnx.ModelProto, names: list[str], calibration: Iterable[Arrays]) -> dict[str, Floats]:
    """Tokens at the named places: a sample, and with it those that hold a channel's extremes."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    seen: dict[str, list[Floats]] = {name: [] for name in names}
    for batch in calibration if names else ():
        real = batch["attention_mask"].astype(bool)
        for name, found in zip(names, session.run(names, dict(batch)), strict=True):
            seen[name].append(found[real])
    return {name: _sample(np.concatenate(found)) for name, found in seen.items()}


def _sample(tokens: Floats) -> Floats:
    widest = np.argsort(np.ptp(tokens, axis=0))[-EXTREMES:]
    extremes = np.unique([tokens[:, widest].argmax(axis=0), tokens[:, widest].argmin(axis=0)])
    spread = np.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens)), dtype=int)
    sampled: Floats = tokens[np.concatenate([spread, extremes])]
    return sampled


def _put(graph: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    graph.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _integer_nodes(graph: onnx.ModelProto, product: Product, choice: Choice) -> list[onnx.NodeProto]:
    source, name = product.matmul.input[0], product.matmul.input[1]
    nodes = []
    if choice.smooth is not None:
        factor = _put(graph, f"{name}.smooth", (1 / choice.smooth).astype(np.float32))
        nodes.append(helper.make_node("Mul", [source, factor], [f"{name}.smoothed"], f"{name}.Mul"))
        source = f"{name}.smoothed"
    scale = _put(graph, f"{name}.scale", np.array(choice.scale, np.float32))
    zero = _put(graph, f"{name}.zero", np.array(choice.zero, np.uint8))
    integer = f"{name}.integer"
    nodes.append(
        helper.make_node("QuantizeLinear", [source, scale, zero], [integer], f"{name}.QuantizeLinear")
    )
    weight = _put(graph, f"{name}.int8", choice.weight)
    columns = _put(graph, f"{name}.columns", choice.columns)
    bias = _put(graph, f"{name}.bias", product.bias)
    inputs = [integer, weight, scale, columns, zero, "", bias]
    kind = "MatMulIntegerToFloat"
    out = [product.add.output[0]]
    nodes.append(helper.make_node(kind, inputs, out, f"{name}.{kind}", domain="com.microsoft"))
    return nodes


def _integer_table(graph: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The word table as int8 with a scale for each word, turned back after the look-up."""
    constants = {put.name: put for put in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type == "Gather" and node.input[0] in constants:
            table = numpy_helper.to_array(constants[node.input[0]])
            if table.dtype != np.float32 or table.size < SMALLEST:
                continue
            name, ids = node.input[0], node.input[1]
            scales = (np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-8) / 127).astype(np.float32)
            integers = _put(graph, f"{name}.int8", np.rint(table / scales).astype(np.int8))
            factors = _put(graph, f"{name}.scales", scales)
            return {
                node.name: [
                    helper.make_node("Gather", [integers, ids], [f"{name}.row"], f"{name}.Gather"),
                    helper.make_node("Gather", [factors, ids], [f"{name}.factor"], f"{name}.GatherScale"),
                    helper.make_node("Cast", [f"{name}.row"], [f"{name}.float"], f"{name}.Cast", to=1),
                    helper.make_node(
                        "Mul", [f"{name}.float", f"{name}.factor"], [node.output[0]], f"{name}.Mul"
                    ),
                ]
            }
    return {}
