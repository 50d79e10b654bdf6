"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from engines.backends import Graph
from engines.engine import Arrays, EngineError, Limits
from engines.ports import MAX_ROWS, WARM, Port, checked, first_line, made_up, shape

# ONNX's names of the element types that graphs take
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def open_graph(graph: Graph) -> OnnxCpu:
    """The backend of the table."""
    artefact = graph.artefact
    data = {name: graph.read(name) for name in artefact.data}
    return OnnxCpu(graph.read(artefact.file), artefact.precision, graph.columns, graph.threads, data)


class OnnxCpu:
    """A graph whose inputs all have the first axis n, with logits [n, k] as its first output, on `threads` threads.

    Texts, trees ([n, features]) and sequences ([n, steps, features]) alike; `columns` bounds the second axis.
    `data` are the files of weights that the graph names, read and verified by the caller: the runtime opens none.
    """

    PROVIDERS: tuple[object, ...] = ("CPUExecutionProvider",)

    def __init__(
        self,
        graph: bytes,
        precision: str,
        columns: int,
        threads: int = 1,
        data: Mapping[str, bytes] | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong comes back as an exception
        # a spinning pool takes the cores that Kafka, the store and other workers need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if data:
            contents = list(data.values())
            options.add_external_initializers_from_files_in_memory(
                list(data), contents, [len(content) for content in contents]
            )
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                graph, options, providers=list(self.PROVIDERS)
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime does not take the graph: {first_line(error)}") from None
        inputs = self._session.get_inputs()
        if unknown := {put.type for put in inputs} - set(_TYPES):
            raise EngineError(f"the graph takes {', '.join(sorted(unknown))}; known are {', '.join(_TYPES)}")
        self._ports = {put.name: Port(np.dtype(_TYPES[put.type]), shape(put.shape)) for put in inputs}
        self._precision = precision
        self._columns = columns

    def name(self) -> str:
        return f"onnxruntime-{self._precision}"

    def limits(self) -> Limits:
        return Limits(MAX_ROWS, self._columns)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._session is None:
            raise EngineError(f"the engine `{self.name()}` is closed")
        arrays = checked(self._ports, inputs)
        try:
            logits = self._session.run(None, arrays)[0]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {first_line(error)}") from None
        return np.asarray(logits, np.float32)

    def warm(self) -> None:
        for rows, columns in WARM:
            self.infer(made_up(self._ports, rows, min(columns, self._columns)))

    def close(self) -> None:
        self._session = None
