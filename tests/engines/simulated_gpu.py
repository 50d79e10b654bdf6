"""A device that keeps CUDA's and TensorRT's order of events in the host's memory, for the runtime's Python.

Streams run at once, or record while a graph is captured; device memory is memory of its own; an engine answers with
ONNX Runtime. What it cannot show is what a GPU computes, and how fast.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from engines.tensorrt_build import Profile

Work = Callable[[], None]


class Cuda:
    """The part of `cuda.bindings.runtime` that the engine uses."""

    cudaStreamNonBlocking = 1  # noqa: N815 - CUDA's name
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.memory: dict[int, Any] = {}
        self.recording: list[Work] | None = None
        self.launches = self.captures = 0

    def cudaGetDeviceCount(self) -> tuple[int, int]:  # noqa: N802 - CUDA's names
        return (0, self.count) if self.count else (100, 0)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:  # noqa: N802
        return 0, SimpleNamespace(name=b"Simulated\0\0", major=8, minor=9)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:  # noqa: N802
        taken = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(taken)] = taken
        return 0, ctypes.addressof(taken)

    cudaMalloc = cudaMallocHost  # noqa: N815

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.memory[address]
        return (0,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        assert self.recording is None, "a stream that records must not be waited for"
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self.recording = []
        self.captures += 1
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Work]]:  # noqa: N802
        recorded, self.recording = self.recording or [], None
        return 0, recorded

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[int, list[Work]]:  # noqa: N802
        return 0, list(graph)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[int]:  # noqa: N802
        graph.clear()
        return (0,)

    def cudaGraphExecDestroy(self, graph: list[Work]) -> tuple[int]:  # noqa: N802
        graph.clear()
        return (0,)

    def cudaGraphLaunch(self, graph: list[Work], stream: int) -> tuple[int]:  # noqa: N802
        self.launches += 1
        for work in graph:
            work()
        return (0,)

    def cudaMemcpyAsync(self, into: int, out: int, size: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        def copy() -> None:
            ctypes.memmove(into, out, size)

        self.enqueue(copy)
        return (0,)

    def enqueue(self, work: Work) -> None:
        if self.recording is None:
            work()
        else:
            self.recording.append(work)


class TensorRtLibrary:
    """The part of `tensorrt` that the engine uses; a plan is the ONNX graph itself."""

    __name__ = "simulated"
    __version__ = "0"
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    Logger: Any = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})

    def __init__(self, cuda: Cuda, profiles: Sequence[Profile]) -> None:
        self._cuda = cuda
        self._profiles = profiles

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        return _Engine(self._cuda, self._profiles, plan) if plan else None

    @staticmethod
    def nptype(kind: Any) -> Any:
        return kind


class _Engine:
    def __init__(self, cuda: Cuda, profiles: Sequence[Profile], graph: bytes) -> None:
        self.cuda, self.profiles = cuda, profiles
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.ports: dict[str, Any] = {
            put.name: put for put in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        self.inputs = {put.name for put in self.session.get_inputs()}
        self.num_io_tensors = len(self.ports)

    def get_tensor_name(self, i: int) -> str:
        return list(self.ports)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return {"tensor(int64)": np.int64, "tensor(float)": np.float32}[self.ports[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.ports[name].shape)

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._profile: Profile | None = None
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = self._engine.profiles[profile]
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        free = [i for i, axis in enumerate(self._engine.get_tensor_shape(name)) if axis < 0]
        fits = 1 <= shape[0] <= self._profile.most
        fits = fits and all(shape[i] == self._profile.columns for i in free if i)
        self._shapes[name] = shape
        return fits

    def execute_async_v3(self, stream: int) -> bool:
        shapes = dict(self._shapes)
        self._engine.cuda.enqueue(lambda: self._run(shapes))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]]) -> None:
        engine = self._engine
        inputs = {
            name: self._at(name, shape, np.dtype(engine.get_tensor_dtype(name)))
            for name, shape in shapes.items()
        }
        for name, found in zip(
            [name for name in engine.ports if name not in engine.inputs],
            engine.session.run(None, inputs),
            strict=True,
        ):
            self._at(name, found.shape, found.dtype)[...] = found

    def _at(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        size = int(np.prod(shape)) * dtype.itemsize
        taken = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(memoryview(taken), np.uint8).view(dtype).reshape(shape)
