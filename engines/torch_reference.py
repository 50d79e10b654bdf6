"""The reference: torch, in float32 throughout, on the weights of the half-precision graph. Needs the extra `train`.

It goes through the graph node by node with torch's own operators, so that a backend is compared with another
implementation and not with itself. Slow, and meant to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.backends import Graph
from engines.engine import Arrays, EngineError, Limits
from engines.ports import MAX_ROWS, Port, checked, first_line, made_up

_FLOATS = (1, 10, 11, 16)  # ONNX's numbers of float, half, double and bfloat16: all are float32 here


def open_graph(graph: Graph) -> TorchReference:
    """The backend of the table."""
    artefact = graph.artefact
    data = {name: graph.read(name) for name in artefact.data}
    return TorchReference(graph.read(artefact.file), graph.columns, graph.threads, data)


class TorchReference:
    """A graph as in `OnnxCpu`; raises EngineError where it has an operator that the reference does not know."""

    def __init__(
        self, graph: bytes, columns: int, threads: int = 1, data: dict[str, bytes] | None = None
    ) -> None:
        import onnx
        import torch

        try:
            model = onnx.load_from_string(graph)
            onnx.checker.check_model(model) if not data else None
        except Exception as error:
            raise EngineError(f"torch does not take the graph: {first_line(error)}") from None
        if unknown := {node.op_type for node in model.graph.node} - set(_operators(torch)):
            raise EngineError(f"torch does not take the graph: no operator {', '.join(sorted(unknown))}")
        self._torch: Any = torch
        self._threads = threads
        self._columns = columns
        self._nodes = list(model.graph.node)
        self._attributes = [
            {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            for node in self._nodes
        ]
        self._operators = _operators(torch)
        self._constants = {put.name: _tensor(torch, onnx, put, data or {}) for put in model.graph.initializer}
        self._ports = {
            put.name: Port(
                onnx.helper.tensor_dtype_to_np_dtype(put.type.tensor_type.elem_type),
                tuple(axis.dim_value for axis in put.type.tensor_type.shape.dim),
            )
            for put in model.graph.input
        }
        self._output = model.graph.output[0].name
        self._last = {name: i for i, node in enumerate(self._nodes) for name in node.input}

    def name(self) -> str:
        return "torch-fp32"

    def limits(self) -> Limits:
        return Limits(MAX_ROWS, self._columns)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._torch is None:
            raise EngineError(f"the engine `{self.name()}` is closed")
        torch = self._torch
        arrays = checked(self._ports, inputs)
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                known = {
                    name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
                }
                return self._run(known)
        except Exception as error:
            raise EngineError(f"torch failed: {first_line(error)}") from None
        finally:
            torch.set_num_threads(before)

    def _run(self, known: dict[str, Any]) -> NDArray[np.float32]:
        for i, (node, attributes) in enumerate(zip(self._nodes, self._attributes, strict=True)):
            values = [known.get(name, self._constants.get(name)) for name in node.input]
            known[node.output[0]] = self._operators[node.op_type](attributes, *values)
            for name in node.input:
                if self._last[name] == i and name != self._output:
                    known.pop(name, None)
        answer: NDArray[np.float32] = known[self._output].float().numpy()
        return answer

    def warm(self) -> None:
        self.infer(made_up(self._ports, 1, min(16, self._columns)))

    def close(self) -> None:
        self._torch = None
        self._constants = {}


def _tensor(torch: Any, onnx: Any, put: Any, data: dict[str, bytes]) -> Any:
    """An initializer, from inside the graph or out of its file of weights; floating ones as float32."""
    where = {item.key: item.value for item in put.external_data}
    if where:
        start, length = int(where.get("offset", 0)), int(where["length"])
        content = data[where["location"]][start : start + length]
        array = np.frombuffer(content, onnx.helper.tensor_dtype_to_np_dtype(put.data_type))
        array = array.reshape(tuple(put.dims))
    else:
        array = onnx.numpy_helper.to_array(put)
    tensor = torch.from_numpy(array.copy())
    return tensor.float() if tensor.is_floating_point() else tensor


def _operators(torch: Any) -> dict[str, Callable[..., Any]]:
    """ONNX's operators (opset 20) that sentence and sequence models are made of, by torch's functions."""

    def cast(a: dict[str, Any], x: Any) -> Any:
        return (
            x.float()
            if a["to"] in _FLOATS
            else x.to({6: torch.int32, 7: torch.int64, 9: torch.bool}[a["to"]])
        )

    def slices(a: dict[str, Any], x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
        where = axes.tolist() if axes is not None else range(len(starts))
        by = steps.tolist() if steps is not None else [1] * len(starts)
        cut = [slice(None)] * x.dim()
        for axis, start, end, step in zip(where, starts.tolist(), ends.tolist(), by, strict=True):
            cut[axis] = slice(start, end, step)
        return x[tuple(cut)]

    def squeeze(a: dict[str, Any], x: Any, axes: Any = None) -> Any:
        return x.squeeze(tuple(axes.tolist())) if axes is not None else x.squeeze()

    def unsqueeze(a: dict[str, Any], x: Any, axes: Any) -> Any:
        for axis in sorted(axes.reshape(-1).tolist()):
            x = x.unsqueeze(axis)
        return x

    def reshape(a: dict[str, Any], x: Any, sizes: Any) -> Any:
        wanted = sizes.tolist()
        if not a.get("allowzero"):
            wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        return x.reshape(wanted)

    def normal(a: dict[str, Any], x: Any, scale: Any, bias: Any = None) -> Any:
        axis = a.get("axis", -1) % x.dim()
        return torch.layer_norm(x, list(x.shape[axis:]), scale, bias, a.get("epsilon", 1e-5))

    def gemm(a: dict[str, Any], x: Any, y: Any, c: Any = None) -> Any:
        x = x.T if a.get("transA") else x
        y = y.T if a.get("transB") else y
        product = a.get("alpha", 1.0) * (x @ y)
        return product if c is None else product + a.get("beta", 1.0) * c

    def reduced(function: Any) -> Callable[..., Any]:
        def reduce(a: dict[str, Any], x: Any, axes: Any = None) -> Any:
            where = axes.tolist() if axes is not None else list(range(x.dim()))
            return function(x, where, bool(a.get("keepdims", 1)))

        return reduce

    def gather(a: dict[str, Any], x: Any, ids: Any) -> Any:
        axis = a.get("axis", 0)
        return torch.index_select(x, axis, ids.reshape(-1)).reshape(
            *x.shape[:axis], *ids.shape, *x.shape[axis + 1 :]
        )

    def divide(a: dict[str, Any], x: Any, y: Any) -> Any:
        return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")

    return {
        "Add": lambda a, x, y: x + y,
        "Cast": cast,
        "Concat": lambda a, *x: torch.cat(x, a["axis"]),
        "Div": divide,
        "Erf": lambda a, x: torch.erf(x),
        "Exp": lambda a, x: torch.exp(x),
        "Gather": gather,
        "Gelu": lambda a, x: torch.nn.functional.gelu(x, approximate=a.get("approximate", b"none").decode()),
        "Gemm": gemm,
        "LayerNormalization": normal,
        "MatMul": lambda a, x, y: x @ y,
        "Mul": lambda a, x, y: x * y,
        "ReduceMax": reduced(torch.amax),
        "ReduceMean": reduced(torch.mean),
        "ReduceSum": reduced(torch.sum),
        "Relu": lambda a, x: torch.relu(x),
        "Reshape": reshape,
        "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]),
        "Sigmoid": lambda a, x: torch.sigmoid(x),
        "Slice": slices,
        "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
        "Sqrt": lambda a, x: torch.sqrt(x),
        "Squeeze": squeeze,
        "Sub": lambda a, x, y: x - y,
        "Tanh": lambda a, x: torch.tanh(x),
        "Transpose": lambda a, x: x.permute(*a["perm"]),
        "Unsqueeze": unsqueeze,
        "Where": lambda a, c, x, y: torch.where(c, x, y),
    }
