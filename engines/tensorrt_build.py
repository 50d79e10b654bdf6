"""A GPU graph as a serialised TensorRT engine (a plan): parse, optimisation profiles, build. Needs no GPU.

Networks are strongly typed: the precision is that of the graph, and a graph whose types do not fit is refused here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from engines.engine import EngineError
from engines.ports import MAX_ROWS

# the same API; the RTX library builds without a GPU, and its bindings are there without the package that names them
LIBRARIES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
USUAL_ROWS = 8  # for which kernels are chosen


class Profile(NamedTuple):
    """One optimisation profile: rows from one to `most`, and one length."""

    usual: int
    most: int
    columns: int


def library() -> Any:
    """TensorRT's module; raises EngineError where neither of its packages is installed."""
    for name in LIBRARIES:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise EngineError(f"none of {', '.join(LIBRARIES)} is installed: pip install '.[gpu]'")


def builds_anywhere(trt: Any) -> bool:
    """Whether this library builds plans for architectures that are not here."""
    return str(trt.__name__).startswith("tensorrt_rtx")


def profiles(buckets: Sequence[int], columns: int, rows: int = MAX_ROWS) -> tuple[Profile, ...]:
    """One profile for each length bucket; the last one has the longest length.

    Lengths are fixed because the runtime pads to them: fixed shapes are what CUDA graphs can replay.
    """
    lengths = sorted({bucket for bucket in buckets if 0 < bucket < columns} | {columns})
    return tuple(Profile(min(USUAL_ROWS, rows), rows, length) for length in lengths)


def build_plan(
    trt: Any,
    graph: bytes,
    wanted: Sequence[Profile],
    data: Mapping[str, bytes] | None = None,
    architectures: Sequence[int] = (),
) -> bytes:
    """The serialised engine of an ONNX graph with the profiles wanted.

    `architectures` (80, 86, 89, ...) are the compute capabilities to build for where no GPU is, with TensorRT-RTX;
    without them the plan is for the GPU that is here. `data` are the files of weights that the graph names. Raises
    EngineError with TensorRT's first complaint.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    _parse(parser, graph, data or {}, logger)
    config = builder.create_builder_config()
    for profile in wanted:
        _add(builder, network, config, profile)
    if architectures:
        config.num_compute_capabilities = len(architectures)
    for i, architecture in enumerate(architectures):
        capability = getattr(trt.ComputeCapability, f"SM{architecture}", None)
        if capability is None:
            raise EngineError(f"TensorRT {trt.__version__} builds nothing for SM {architecture}")
        config.set_compute_capability(capability, i)
    logger.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT builds no engine: {logger.first()}")
    return bytes(plan)


def _parse(parser: Any, graph: bytes, data: Mapping[str, bytes], logger: Any) -> None:
    if data:
        # the parser opens the files itself: it gets the bytes that were verified, where nobody else can write
        with tempfile.TemporaryDirectory(prefix="tapewatch-") as folder:
            for name, content in data.items():
                (Path(folder) / name).write_bytes(content)
            parsed = parser.parse(graph, str(Path(folder) / "graph.onnx"))
    else:
        parsed = parser.parse(graph)
    if not parsed:
        raise EngineError(f"TensorRT does not take the graph: {_complaint(parser, logger)}")


def _complaint(parser: Any, logger: Any) -> str:
    """Where the parser stopped, and why: the node's name and operator, and what TensorRT says."""
    if not parser.num_errors:
        return str(logger.first())
    error = parser.get_error(0)
    told = " ".join(error.desc().split())[:240]
    node = f" at {error.node_operator()} {error.node_name()}" if error.node_operator() else ""
    return f"{told}{node}"


def _add(builder: Any, network: Any, config: Any, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        put = network.get_input(i)
        shapes = [fixed(tuple(put.shape), rows, profile.columns) for rows in (1, profile.usual, profile.most)]
        try:
            made.set_shape(put.name, *shapes)
        except ValueError as error:
            raise EngineError(
                f"TensorRT takes no profile {shapes} of {put.name!r}: {' '.join(str(error).split())[:200]}"
            ) from None
    # TensorRT answers -1 for a profile that does not fit the network
    if not made or config.add_optimization_profile(made) < 0:
        raise EngineError(f"TensorRT takes no profile of {profile.most} rows and {profile.columns} columns")


def fixed(shape: Sequence[int], rows: int, columns: int) -> tuple[int, ...]:
    """A shape with its free axes (not positive) filled: the first with rows, the others with columns."""
    return tuple(axis if axis > 0 else (rows if i == 0 else columns) for i, axis in enumerate(shape))


def _logger(trt: Any) -> Any:
    """A logger that keeps errors for the exception instead of printing them."""

    class Kept(trt.ILogger):  # type: ignore[misc] # a class of the library that was found
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

        def first(self) -> str:
            return " ".join(self.errors[0].split())[:300] if self.errors else "it gives no reason"

    return Kept()
