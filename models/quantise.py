"""Int8 for the CPU: every large matrix product of a float32 graph becomes an integer one with fixed scales.

Dynamic quantisation takes one scale for a whole batch, so a headline's answer depends on its neighbours, and one
outlier costs all of them precision. Here the scales are fixed beforehand on calibration texts: an answer depends on
its own text only, and nothing is measured at run time. Outlier channels are smoothed into the weights
(SmoothQuant, Xiao et al. 2023); smoothing and clipping are chosen per product by the error of its output.
Processors without VNNI add the products of two neighbouring rows in 16 bits, which would saturate, and answers
would differ between machines: so the weights of two such rows together have the eight bits of one. As both are
seldom large, that costs half a bit, where seven bits for each weight would cost one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from engines.engine import Arrays

Floats = NDArray[np.float32]

MOST = 127  # of a weight, and of the sum of two rows of a pair, see above
SMOOTHINGS = (0.0, 0.3, 0.5, 0.7)  # the exponent alpha of SmoothQuant; 0 is none
CLIPS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.2, 0.1)  # the share of the seen range that is kept
BEYOND = 16  # channels whose values outside the range are multiplied in float32
WORTH_A_PASS = 0.6  # smoothing and those channels cost a pass each: the error must be at most this share
SMALLEST = 1 << 14  # weights; a smaller product (the head) stays in float32
SAMPLE = 1024  # tokens on which a choice is judged; ranges are those of all
DAMPING = 0.01  # of the mean square of an input, against calibration tokens learned by heart
BLOCK = 128  # rows that are rounded before the rest is corrected


@dataclass(frozen=True)
class Product:
    """One `x @ weight + bias` of the graph."""

    matmul: onnx.NodeProto
    add: onnx.NodeProto
    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Choice:
    """How a product's input is quantised: x -> round(x / smooth / scale) + zero, within a byte.

    What the channels `beyond` have outside that range is multiplied in float32 and added.
    """

    smooth: Floats | None
    scale: np.float32
    zero: int
    beyond: NDArray[np.intp]
    error: float

    def integers(self, x: Floats) -> Floats:
        """What the integer product sees of `x`, the zero point taken away."""
        even = x if self.smooth is None else x / self.smooth
        found: Floats = np.clip(np.rint(even / self.scale) + self.zero, 0, 255) - np.float32(self.zero)
        return found

    def limits(self) -> Floats:
        """The least and the largest value, [2, beyond], of the channels `beyond` that the range holds."""
        ends = np.array([[-self.zero], [255 - self.zero]], np.float32) * self.scale
        found: Floats = ends * (np.ones(1, np.float32) if self.smooth is None else self.smooth[self.beyond])
        return np.broadcast_to(found, (2, len(self.beyond))).astype(np.float32)

    def excess(self, x: Floats) -> Floats:
        """What the channels `beyond` have outside the range, [n, beyond]."""
        low, high = self.limits()
        found: Floats = x[:, self.beyond] - np.clip(x[:, self.beyond], low, high)
        return found


@dataclass(frozen=True)
class Rounded:
    """A product's weight as integers with a scale for each column, and its bias."""

    weight: NDArray[np.int8]
    columns: Floats
    bias: Floats


def quantise(
    graph: onnx.ModelProto, calibration: Sequence[Arrays], exact: frozenset[str] = frozenset()
) -> None:
    """Replace in `graph`, in place, the products with constant weights, and the word table.

    `calibration` are batches of model inputs; products whose weight is named in `exact` stay in float32.
    """
    del graph.graph.value_info[:]
    products = list(_products(graph, exact))
    seen = _observe(graph, sorted({product.matmul.input[0] for product in products}), calibration)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for product in products:
        tokens = seen[product.matmul.input[0]]
        choice = choose(product, tokens)
        rounded = compensate(product, choice, tokens)
        replaced[product.matmul.name] = _integer_nodes(graph, product, choice, rounded)
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


def choose(product: Product, seen: Floats) -> Choice:
    """The smoothing, range and channels beyond it with the least squared error of the output on some of `seen`."""
    sample = seen[np.linspace(0, len(seen) - 1, min(SAMPLE, len(seen)), dtype=int)]
    truth = sample @ product.weight
    peaks = np.stack([seen.min(axis=0), seen.max(axis=0)])  # of each channel
    tried = [found for alpha in SMOOTHINGS for found in _tries(product, sample, peaks, truth, alpha)]

    def cost(found: Choice) -> float:
        passes = (found.smooth is not None) + (len(found.beyond) > 0)
        return found.error / float(WORTH_A_PASS**passes)

    return min(tried, key=cost)


def _tries(product: Product, sample: Floats, peaks: Floats, truth: Floats, alpha: float) -> Iterator[Choice]:
    """Each range with one exponent of smoothing, without and with channels beyond it."""
    smooth: Floats | None = None
    even, weight = peaks, product.weight
    if alpha:
        ranges = np.maximum(np.abs(peaks).max(axis=0), 1e-5)
        rows = np.maximum(np.abs(weight).max(axis=1), 1e-5)
        smooth = (ranges**alpha / rows ** (1 - alpha)).astype(np.float32)
        even, weight = peaks / smooth, weight * smooth[:, None]
    columns = _columns(weight)
    rounded = np.rint(weight / columns) * columns
    importance = np.square(product.weight).sum(axis=1)
    everywhere = np.arange(len(weight))
    for clip in CLIPS:
        limit = clip * float(np.abs(even).max())  # the smaller side is kept whole if it is within the limit
        low, high = max(min(float(even.min()), 0.0), -limit), min(max(float(even.max()), 1e-6), limit)
        scale = np.float32((high - low) / 255)
        choice = Choice(smooth, scale, round(-low / float(scale)), everywhere[:0], 0.0)
        missing = (choice.integers(sample) @ rounded) * scale - truth
        yield replace(choice, error=float(np.square(missing).mean()))
        lost = np.square(replace(choice, beyond=everywhere).excess(sample)).sum(axis=0) * importance
        beyond = np.sort(np.argsort(lost)[-BEYOND:])
        if lost[beyond].any():
            choice = replace(choice, beyond=beyond)
            missing += choice.excess(sample) @ product.weight[beyond]
            yield replace(choice, error=float(np.square(missing).mean()))


def compensate(product: Product, choice: Choice, seen: Floats) -> Rounded:
    """The weight as integers, chosen so that the product of the quantised `seen` stays what it is in floats.

    Rows are rounded one after the other, and what a row loses the rows after it make up, as far as they see the same
    (GPTQ, Frantar et al. 2023). The mean of what remains, with what quantising the input loses, goes into the bias.
    """
    x = choice.integers(seen) * choice.scale
    weight = product.weight.astype(np.float64)
    if choice.smooth is not None:
        weight = weight * choice.smooth[:, None]
    square = (x.T @ x).astype(np.float64) / len(x)
    square += DAMPING * np.diag(square).mean() * np.eye(len(square))
    factor = np.linalg.cholesky(np.linalg.inv(square)).T  # upper triangular
    columns = _columns(weight.astype(np.float32))
    integers = np.zeros(weight.shape)
    for first in range(0, len(weight), BLOCK):
        end = min(first + BLOCK, len(weight))
        lost = np.zeros((end - first, weight.shape[1]))
        for i in range(first, end):
            low, high = _room(integers[i - 1]) if i % 2 else (-MOST, MOST)
            integers[i] = np.clip(np.rint(weight[i] / columns), low, high)
            lost[i - first] = (weight[i] - integers[i] * columns) / factor[i, i]
            weight[i + 1 : end] -= np.outer(factor[i, i + 1 : end], lost[i - first])
        weight[end:] -= factor[first:end, end:].T @ lost
    answer = (x @ integers.astype(np.float32)) * columns
    answer += choice.excess(seen) @ product.weight[choice.beyond]
    bias = product.bias + (seen @ product.weight - answer).mean(axis=0)
    return Rounded(integers.astype(np.int8), columns, bias.astype(np.float32))


def _columns(weight: Floats) -> Floats:
    """The scale of each column: as fine as the largest weight and the largest pair allow."""
    even = np.zeros((len(weight) + len(weight) % 2, weight.shape[1]), np.float32)
    even[: len(weight)] = weight
    pairs = np.maximum(np.abs(even[::2] + even[1::2]), np.maximum(np.abs(even[::2]), np.abs(even[1::2])))
    found: Floats = (np.maximum(pairs.max(axis=0), 1e-8) / MOST).astype(np.float32)
    return found


def _room(before: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the largest weight that may stand beside those of the row before."""
    return np.maximum(-MOST, -MOST - before), np.minimum(MOST, MOST - before)


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
            yield Product(node, add, weight, bias)


def _observe(graph: onnx.ModelProto, names: list[str], calibration: Sequence[Arrays]) -> dict[str, Floats]:
    """All tokens, [n, width], at the named places; padding left out."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    del probe.graph.output[:]
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what nobody reads any more is no news
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = [put.name for put in session.get_inputs()]
    seen: dict[str, list[Floats]] = {name: [] for name in names}
    for batch in calibration if names else ():
        real = batch["attention_mask"].astype(bool)
        for name, found in zip(names, session.run(names, {put: batch[put] for put in inputs}), strict=True):
            seen[name].append(found[real])
    return {name: np.concatenate(found) for name, found in seen.items()}


def _put(graph: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    graph.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _integer_nodes(
    graph: onnx.ModelProto, product: Product, choice: Choice, rounded: Rounded
) -> list[onnx.NodeProto]:
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
    weight = _put(graph, f"{name}.int8", rounded.weight)
    columns = _put(graph, f"{name}.columns", rounded.columns)
    bias = _put(graph, f"{name}.bias", rounded.bias)
    inputs = [integer, weight, scale, columns, zero, "", bias]
    kind, out = "MatMulIntegerToFloat", product.add.output[0]
    inside = f"{name}.inside" if len(choice.beyond) else out
    nodes.append(helper.make_node(kind, inputs, [inside], f"{name}.{kind}", domain="com.microsoft"))
    if not len(choice.beyond):
        return nodes
    low, high = (
        _put(graph, f"{name}.{end}", value)
        for end, value in zip(("low", "high"), choice.limits(), strict=True)
    )
    which = _put(graph, f"{name}.which", choice.beyond.astype(np.int64))
    rows = _put(graph, f"{name}.rows", product.weight[choice.beyond])
    for kind, put, result in (
        ("Gather", [product.matmul.input[0], which], "some"),
        ("Min", [f"{name}.some", high], "below"),
        ("Max", [f"{name}.below", low], "within"),
        ("Sub", [f"{name}.some", f"{name}.within"], "beyond"),
        ("MatMul", [f"{name}.beyond", rows], "outside"),
    ):
        axis: dict[str, Any] = {"axis": -1} if kind == "Gather" else {}
        nodes.append(helper.make_node(kind, put, [f"{name}.{result}"], f"{name}.{result}", **axis))
    nodes.append(helper.make_node("Add", [inside, f"{name}.outside"], [out], f"{name}.sum"))
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
