"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from engines.backends import Graph
from engines.engine import Arrays, EngineError, Limits

MAX_ROWS = 64


# ONNX's names of the element types that graphs take
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


def open_graph(graph: Graph) -> OnnxCpu:
    """The backend of the table: a graph with all its weights in one file."""
    content = graph.read(graph.artefact.file)
    return OnnxCpu(content, graph.artefact.precision, graph.columns, graph.threads)


class OnnxCpu:
    """A graph whose inputs all have the first axis n, with logits [n, k] as its first output, on `threads` threads.

    Texts, trees ([n, features]) and sequences ([n, steps, features]) alike; `columns` bounds the second axis.
    """

    def __init__(self, graph: bytes, precision: str, columns: int, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # a spinning pool takes the cores that Kafka, the store and other workers need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime does not take the graph: {first_line(error)}") from None
        self._inputs = {put.name: (put.type, put.shape) for put in self._session.get_inputs()}
        if unknown := {kind for kind, _ in self._inputs.values()} - set(_TYPES):
            raise EngineError(f"the graph takes {', '.join(sorted(unknown))}; known are {', '.join(_TYPES)}")
        self._precision = precision
        self._columns = columns

    def name(self) -> str:
        return f"onnxruntime-{self._precision}"

    def limits(self) -> Limits:
        return Limits(MAX_ROWS, self._columns)

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._session is None:
            raise EngineError(f"the engine `{self.name()}` is closed")
        try:
            logits = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {first_line(error)}") from None
        return np.asarray(logits, np.float32)

    def warm(self) -> None:
        for rows, columns in ((1, 16), (8, 32)):
            self.infer(
                {
                    name: np.ones(self._shape(shape, rows, min(columns, self._columns)), _TYPES[kind])
                    for name, (kind, shape) in self._inputs.items()
                }
            )

    def close(self) -> None:
        self._session = None

    @staticmethod
    def _shape(shape: Sequence[int | str | None], rows: int, columns: int) -> tuple[int, ...]:
        """Axes of an input that the graph leaves open, filled: the first with rows, others with columns."""
        return rows, *(axis if isinstance(axis, int) else columns for axis in shape[1:])


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, which may be pages long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
