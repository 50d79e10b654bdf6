"""TensorRT on an NVIDIA GPU: one context a profile, pinned buffers, a stream, and a CUDA graph for each fixed shape.

A batch is padded to the next shape of a small grid (rows 1, 2, 4, ... by the bundle's length buckets); a shape that was
seen is one launch of a recorded graph: copy in, infer, copy out. Memory and streams come from `cuda-bindings`.

**Nobody has run this on a GPU yet.** Its Python is tested on a simulated device, its plans are built in the tests.
"""

from __future__ import annotations

import bisect
import ctypes
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.backends import Graph
from engines.engine import Arrays, EngineError, Limits
from engines.plans import PlanCache, PlanKey, default_folder
from engines.ports import Port, checked, first_line
from engines.tensorrt_build import Profile, build_plan, fixed, library, profiles

log = logging.getLogger("tapewatch.engines")


class Device(NamedTuple):
    """The GPU that a plan is for."""

    name: str
    capability: str


class Cell(NamedTuple):
    """A shape of the grid: which profile runs it, and how far a batch is padded."""

    profile: int
    rows: int
    columns: int


def open_graph(graph: Graph) -> TensorRt:
    """The backend of the table; the first start with a bundle builds its plan, which takes a minute or more."""
    from cuda.bindings import runtime as cuda

    device = find_device(cuda)
    trt = library()
    wanted = profiles(graph.buckets, graph.columns)
    plan = cached_plan(trt, graph, wanted, device, PlanCache(default_folder()))
    return TensorRt(trt, cuda, plan, wanted, graph.artefact.precision)


def find_device(cuda: Any) -> Device:
    """The first GPU; raises EngineError where there is none or no driver."""
    error, count = cuda.cudaGetDeviceCount()
    if int(error) != 0 or not count:
        told = getattr(error, "name", error) if int(error) else "the driver finds none"
        raise EngineError(f"TensorRT needs an NVIDIA GPU with its driver: {told}")
    found = _ok(cuda.cudaGetDeviceProperties(0), "reading the GPU's properties")
    name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
    return Device(name.strip("\0 "), f"{found.major}.{found.minor}")


def cached_plan(trt: Any, graph: Graph, wanted: Sequence[Profile], device: Device, cache: PlanCache) -> bytes:
    """The plan of a graph for this device, out of the cache or built now and kept."""
    key = PlanKey(
        graph=graph.digest,
        library=f"{trt.__name__} {trt.__version__}",
        gpu=device.name,
        capability=device.capability,
        precision=graph.artefact.precision,
        profiles=tuple(wanted),
    )
    if (plan := cache.read(key)) is not None:
        return plan
    log.info("building the plan of %s for %s: a minute or more, once", graph.model, device.name)
    began = time.monotonic()
    data = {name: graph.read(name) for name in graph.artefact.data}
    plan = build_plan(trt, graph.read(graph.artefact.file), wanted, data)
    log.info(
        "built the plan of %s: %.1f MB in %.0f s", graph.model, len(plan) / 1e6, time.monotonic() - began
    )
    cache.write(key, plan)
    return plan


def cell_of(wanted: Sequence[Profile], rows: int, columns: int) -> Cell:
    """The smallest shape of the grid that holds a batch; raises EngineError where it is larger than the last."""
    profile = bisect.bisect_left([found.columns for found in wanted], columns)
    if profile == len(wanted) or rows > wanted[profile].most:
        most = wanted[-1]
        raise EngineError(
            f"a batch of {rows} rows and {columns} columns, at most {most.most} and {most.columns} are taken"
        )
    found = wanted[profile]
    return Cell(profile, min(1 << max(rows - 1, 0).bit_length(), found.most), found.columns)


def buffer_bytes(port: Port, wanted: Sequence[Profile]) -> int:
    """Bytes of a buffer that holds an input or output in every profile."""
    largest = max(int(np.prod(fixed(port.shape, found.most, found.columns))) for found in wanted)
    return largest * port.dtype.itemsize


class _Buffer:
    """The same bytes twice: pinned in the host's memory, and on the device."""

    def __init__(self, cuda: Any, size: int) -> None:
        self._cuda = cuda
        self.host = _ok(cuda.cudaMallocHost(size), f"pinning {size} bytes")
        self.device = _ok(cuda.cudaMalloc(size), f"taking {size} bytes of the GPU's memory")
        pinned = (ctypes.c_uint8 * size).from_address(int(self.host))
        self._bytes = np.frombuffer(memoryview(pinned), np.uint8)

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The first bytes of the pinned half as an array of this shape."""
        size = int(np.prod(shape)) * dtype.itemsize
        found: NDArray[Any] = self._bytes[:size].view(dtype).reshape(shape)
        return found

    def free(self) -> None:
        self._cuda.cudaFreeHost(self.host)
        self._cuda.cudaFree(self.device)


class TensorRt:
    """A plan on the GPU, as `Engine` promises; free axes are padded with zeros, which a mask must hide."""

    def __init__(self, trt: Any, cuda: Any, plan: bytes, wanted: Sequence[Profile], precision: str) -> None:
        self._trt, self._cuda = trt, cuda
        self._profiles = tuple(wanted)
        self._precision = precision
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"TensorRT {trt.__version__} does not take the plan; remove {default_folder()}")
        self._engine: Any = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        ports = {
            name: Port(
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))), tuple(engine.get_tensor_shape(name))
            )
            for name in names
        }
        into = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        # ports say 0 where a caller is free, TensorRT says -1
        self._ports = {
            name: Port(port.dtype, tuple(max(axis, 0) for axis in port.shape))
            for name, port in ports.items()
            if name in into
        }
        self._output = next(name for name in names if name not in into)
        self._kind = ports[self._output]
        self._stream = _ok(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "making a stream")
        self._buffers = {name: _Buffer(cuda, buffer_bytes(port, wanted)) for name, port in ports.items()}
        self._contexts = [self._context(i) for i in range(len(self._profiles))]
        self._graphs: dict[Cell, Any] = {}

    def _context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, int(self._stream)):
            raise EngineError(f"TensorRT makes no context for profile {profile}: is the GPU's memory full?")
        _ok(self._cuda.cudaStreamSynchronize(self._stream), "choosing a profile")
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, int(buffer.device))
        return context

    def name(self) -> str:
        return f"tensorrt-{self._precision}"

    def limits(self) -> Limits:
        last = self._profiles[-1]
        return Limits(last.most, last.columns, last.most * last.columns)  # a GPU is not full before that

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        if self._engine is None:
            raise EngineError(f"the engine `{self.name()}` is closed")
        arrays = checked(self._ports, inputs)
        rows, columns = self._size(arrays)
        cell = cell_of(self._profiles, rows, columns)
        for name, array in arrays.items():
            place = self._buffers[name].view(
                array.dtype, fixed(self._ports[name].shape, cell.rows, cell.columns)
            )
            place[...] = 0
            place[tuple(slice(size) for size in array.shape)] = array
        if cell not in self._graphs:
            self._graphs[cell] = self._record(cell)
        _ok(self._cuda.cudaGraphLaunch(self._graphs[cell], self._stream), "launching a CUDA graph")
        _ok(self._cuda.cudaStreamSynchronize(self._stream), "inference")
        shape = fixed(self._kind.shape, cell.rows, cell.columns)
        return np.array(self._buffers[self._output].view(self._kind.dtype, shape)[:rows], np.float32)

    def _size(self, arrays: Arrays) -> tuple[int, int]:
        """Rows and columns of a batch: the first axis, and the largest of the free axes after it."""
        rows = len(next(iter(arrays.values())))
        free = [
            size
            for name, array in arrays.items()
            for axis, size in zip(self._ports[name].shape[1:], array.shape[1:], strict=True)
            if axis == 0
        ]
        return rows, max(free, default=self._profiles[0].columns)

    def _record(self, cell: Cell) -> Any:
        """A CUDA graph of one shape. It runs once before: kernels are loaded lazily, which no graph may record."""
        cuda = self._cuda
        self._enqueue(cell)
        _ok(cuda.cudaStreamSynchronize(self._stream), "the first run of a shape")
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _ok(cuda.cudaStreamBeginCapture(self._stream, mode), "recording a CUDA graph")
        try:
            self._enqueue(cell)
        finally:
            recorded = cuda.cudaStreamEndCapture(self._stream)
        graph = _ok(recorded, "recording a CUDA graph")
        made = _ok(cuda.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
        cuda.cudaGraphDestroy(graph)
        return made

    def _enqueue(self, cell: Cell) -> None:
        cuda, context = self._cuda, self._contexts[cell.profile]
        kinds = cuda.cudaMemcpyKind
        for name, port in self._ports.items():
            shape = fixed(port.shape, cell.rows, cell.columns)
            if not context.set_input_shape(name, shape):
                raise EngineError(f"TensorRT takes no {name!r} of shape {list(shape)}")
            buffer, size = self._buffers[name], int(np.prod(shape)) * port.dtype.itemsize
            copied = cuda.cudaMemcpyAsync(
                buffer.device, buffer.host, size, kinds.cudaMemcpyHostToDevice, self._stream
            )
            _ok(copied, "copying to the GPU")
        try:
            started = context.execute_async_v3(int(self._stream))
        except Exception as error:
            raise EngineError(f"TensorRT failed: {first_line(error)}") from None
        if not started:
            raise EngineError(f"TensorRT does not start on {cell.rows} rows of {cell.columns}")
        shape = fixed(self._kind.shape, cell.rows, cell.columns)
        buffer, size = self._buffers[self._output], int(np.prod(shape)) * self._kind.dtype.itemsize
        copied = cuda.cudaMemcpyAsync(
            buffer.host, buffer.device, size, kinds.cudaMemcpyDeviceToHost, self._stream
        )
        _ok(copied, "copying from the GPU")

    def warm(self) -> None:
        """Record the graphs of the rows that single callers and full batches have, in every bucket."""
        for profile in self._profiles:
            for rows in sorted({1, profile.usual, profile.most}):
                shapes = {
                    name: fixed(port.shape, rows, profile.columns) for name, port in self._ports.items()
                }
                self.infer({name: np.ones(shapes[name], port.dtype) for name, port in self._ports.items()})

    def close(self) -> None:
        if self._engine is None:
            return
        self._cuda.cudaStreamSynchronize(self._stream)
        for graph in self._graphs.values():
            self._cuda.cudaGraphExecDestroy(graph)
        self._graphs.clear()
        self._contexts.clear()
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._cuda.cudaStreamDestroy(self._stream)
        self._engine = None


def _ok(answer: Any, doing: str) -> Any:
    """The value beside a CUDA status; raises EngineError where the status is not success."""
    error, *values = answer if isinstance(answer, tuple) else (answer,)
    if int(error) != 0:
        raise EngineError(f"CUDA failed while {doing}: {getattr(error, 'name', error)}")
    return values[0] if values else None
