"""ONNX Runtime on an NVIDIA GPU, where its CUDA build is installed in place of the plain one.

It runs the half-precision graph that TensorRT is built from. Nobody has run this file on a GPU yet.
"""

from __future__ import annotations

import onnxruntime  # type: ignore[import-untyped]

from engines.backends import Graph
from engines.engine import EngineError, Limits
from engines.onnx_cpu import OnnxCpu

PROVIDER = "CUDAExecutionProvider"


def open_graph(graph: Graph) -> OnnxCuda:
    """The backend of the table; raises EngineError where this ONNX Runtime cannot use a GPU."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise EngineError("this ONNX Runtime has no CUDA provider: install onnxruntime-gpu in its place")
    artefact = graph.artefact
    data = {name: graph.read(name) for name in artefact.data}
    return OnnxCuda(graph.read(artefact.file), artefact.precision, graph.columns, graph.threads, data)


class OnnxCuda(OnnxCpu):
    """The same session on the CUDA provider; operators without a kernel there run on the CPU."""

    PROVIDERS = (PROVIDER, "CPUExecutionProvider")

    def name(self) -> str:
        return f"onnxruntime-cuda-{self._precision}"

    def limits(self) -> Limits:
        rows, columns, _ = super().limits()
        return Limits(rows, columns, rows * columns)  # a GPU is not full before that
