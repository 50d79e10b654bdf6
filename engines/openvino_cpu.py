"""OpenVINO on the CPU: the same int8 graph that ONNX Runtime runs, with the same scales.

Its low-precision transformations take our integer products as they are (checked in its runtime model: every large
product is `u8`), so that a bundle needs no second CPU artefact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.backends import Graph
from engines.engine import Arrays, EngineError, Limits
from engines.ports import MAX_ROWS, WARM, Port, checked, first_line, made_up


def open_graph(graph: Graph) -> OpenVino:
    """The backend of the table."""
    if graph.artefact.data:
        raise EngineError(f"OpenVINO takes a graph with its weights inside, {graph.artefact.file} has none")
    content = graph.read(graph.artefact.file)
    return OpenVino(content, graph.artefact.precision, graph.columns, graph.threads)


class OpenVino:
    """A graph as in `OnnxCpu`, on `threads` threads; products that are not int8 are float32, never bfloat16.

    Compiled graphs are not cached: a compiled blob is executable and would have to be guarded like a plan.
    """

    def __init__(self, graph: bytes, precision: str, columns: int, threads: int = 1) -> None:
        import openvino
        from openvino import properties
        from openvino.properties import hint

        options = {
            properties.inference_num_threads: threads,
            hint.num_requests: 1,
            hint.enable_cpu_pinning: False,  # several workers would pin to the same cores
            hint.inference_precision: openvino.Type.f32,  # what parity was proved with
        }
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(graph), "CPU", options)
            self._ports = {
                put.get_any_name(): Port(
                    np.dtype(put.get_element_type().to_dtype()),
                    tuple(axis.get_length() if axis.is_static else 0 for axis in put.get_partial_shape()),
                )
                for put in compiled.inputs
            }
            self._request: Any = compiled.create_infer_request()
        except Exception as error:
            raise EngineError(f"OpenVINO does not take the graph: {_reason(error)}") from None
        self._precision = precision
        self._columns = columns

    def name(self) -> str:
        return f"openvino-{self._precision}"

    def limits(self) -> Limits:
        return Limits(MAX_ROWS, self._columns)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._request is None:
            raise EngineError(f"the engine `{self.name()}` is closed")
        arrays = checked(self._ports, inputs)
        try:
            logits = self._request.infer(arrays)[0]
        except Exception as error:
            raise EngineError(f"OpenVINO failed: {_reason(error)}") from None
        return np.array(logits, np.float32)  # the runtime's buffer is used again

    def warm(self) -> None:
        for rows, columns in WARM:
            self.infer(made_up(self._ports, rows, min(columns, self._columns)))

    def close(self) -> None:
        self._request = None


def _reason(error: Exception) -> str:
    """OpenVINO's message without the places in its own source that precede it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from src", "Check '"))]
    return first_line(Exception(told[0] if told else str(error)))
