"""Which engine runs a graph: the table of backends, what `auto` takes and why, and how it falls back.

A backend is one file with a function that takes a `Graph` and gives an `Engine`. It is imported when it is chosen
and not before, so that serving loads one runtime.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from engines.bundle import Artefact, Bundle
from engines.engine import Engine, EngineError
from engines.machine import Measured, measured

log = logging.getLogger("tapewatch.engines")

FALLBACKS: Counter[tuple[str, str]] = (
    Counter()
)  # (engine preferred, engine taken) of this process, for the metrics


class Graph(NamedTuple):
    """A graph of a bundle, and what a backend needs to know to load it."""

    model: str  # `news/2026.11.1`, with `:part` of a bundle of several graphs
    artefact: Artefact
    read: Callable[[str], bytes]  # verified bytes of a file of the bundle; raises BundleError
    digest: str  # SHA-256 over the hashes of the graph's files: the name of what is computed
    columns: int  # bound of the second axis of the inputs
    buckets: tuple[int, ...]  # lengths for which an engine with fixed profiles is built
    threads: int


class Backend(NamedTuple):
    """How an engine of the setting TAPEWATCH_ENGINE is made."""

    artefacts: tuple[str, ...]  # which graph of the manifest it runs, the first that is there
    function: str  # module:function taking a Graph, imported when chosen
    packages: tuple[tuple[str, ...], ...]  # of each group one must be importable
    remedy: str  # how to get them


BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend(
        ("onnxruntime",), "engines.onnx_cpu:open_graph", (("onnxruntime",),), "`make setup`"
    ),
    "openvino": Backend(
        ("openvino", "onnxruntime"),
        "engines.openvino_cpu:open_graph",
        (("openvino",),),
        "pip install '.[openvino]'",
    ),
    "tensorrt": Backend(
        ("tensorrt",),
        "engines.tensorrt_gpu:open_graph",
        (("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"), ("cuda",)),
        "pip install '.[gpu]' on a machine with an NVIDIA GPU",
    ),
    "onnxruntime-cuda": Backend(
        ("tensorrt",),
        "engines.onnx_cuda:open_graph",
        (("onnxruntime",),),
        "pip install onnxruntime-gpu in the place of onnxruntime",
    ),
    "torch": Backend(
        ("tensorrt", "onnxruntime"),
        "engines.torch_reference:open_graph",
        (("torch",), ("onnx",)),
        "`make setup-train`; serving needs none",
    ),
}


class Choice(NamedTuple):
    """What was opened and why; `refused` names the engines that `auto` would have preferred and could not open."""

    wanted: str
    engine: str
    why: str
    refused: Mapping[str, str]


def open_engine(
    bundle: Bundle,
    engine: str = "auto",
    columns: int = 0,
    threads: int = 1,
    part: str = "",
    precision: str = "",
) -> Engine:
    """The engine of a bundle's graph, not warm yet; `open_chosen` tells why as well.

    `columns` bounds the second axis (0: the manifest's max_tokens). A named engine that cannot run raises EngineError,
    one line; `auto` takes the next and says so in the log. BundleError where a file was changed.
    """
    return open_chosen(bundle, engine, columns, threads, part, precision)[0]


def open_chosen(
    bundle: Bundle,
    engine: str = "auto",
    columns: int = 0,
    threads: int = 1,
    part: str = "",
    precision: str = "",
) -> tuple[Engine, Choice]:
    """As `open_engine`, with the choice beside it; `precision` takes another graph of the same engine (`int8`)."""
    graphs = artefacts_of(bundle, part)
    if engine != "auto":
        graph = graph_of(bundle, graphs, engine, columns, threads, part, precision)
        return _open(engine, graph), Choice(engine, engine, "named by TAPEWATCH_ENGINE", {})
    best = preferred(graphs, part)
    refused: dict[str, str] = {}
    for found in best:
        try:
            graph = graph_of(bundle, graphs, found.engine, columns, threads, part, precision)
            opened = _open(found.engine, graph)
        except EngineError as error:
            refused[found.engine] = str(error)
            log.warning("auto falls back from %s: %s", found.engine, error)
            continue
        FALLBACKS.update((name, found.engine) for name in refused)
        return opened, Choice("auto", found.engine, found.why, refused)
    told = "; ".join(refused.values()) or "none of its graphs is for an engine that is installed"
    raise EngineError(f"no engine runs {_model(bundle, part)}: {told}")


def artefacts_of(bundle: Bundle, part: str = "") -> Mapping[str, Artefact]:
    """The graphs of a bundle, or of one of its parts, by engine; raises EngineError where there is no such part."""
    if not part:
        return bundle.manifest.engines
    found = bundle.manifest.parts.get(part)
    if found is None:
        names = ", ".join(bundle.manifest.parts) or "none"
        raise EngineError(f"{bundle.model} has no part {part!r}, only {names}")
    return found


def preferred(graphs: Mapping[str, Artefact], part: str = "") -> Sequence[Measured]:
    """The installed engines that have a graph here, the one that measured best on this kind of machine first."""
    able = [
        name
        for name, backend in BACKENDS.items()
        if name != "torch" and missing(name) is None and any(key in graphs for key in backend.artefacts)
    ]
    return measured(able, part)


def missing(engine: str) -> str | None:
    """What an engine lacks on this machine's disk and how to get it, or None; nothing is imported."""
    backend = BACKENDS[engine]
    for group in backend.packages:
        if not any(find_spec(name) for name in group):
            return f"{' or '.join(group)} is not installed: {backend.remedy}"
    return None


def graph_of(
    bundle: Bundle,
    graphs: Mapping[str, Artefact],
    engine: str,
    columns: int = 0,
    threads: int = 1,
    part: str = "",
    precision: str = "",
) -> Graph:
    """The graph that an engine runs of a bundle; raises EngineError where it is unknown, missing or has none."""
    if engine not in BACKENDS:
        raise EngineError(f"unknown engine {engine!r}; known are auto, {', '.join(BACKENDS)}")
    if lack := missing(engine):
        raise EngineError(f"the engine {engine!r} cannot run here: {lack}")
    model = _model(bundle, part)
    keys = [f"{key}-{precision}" for key in BACKENDS[engine].artefacts] if precision else []
    keys += BACKENDS[engine].artefacts
    usable = [graphs[key] for key in keys if key in graphs and precision in ("", graphs[key].precision)]
    if not usable:
        kind = f" in {precision}" if precision else ""
        raise EngineError(
            f"{model} has no graph{kind} for {engine!r}, only {', '.join(graphs) or 'none'}; "
            f"`tapewatch models build` makes them"
        )
    artefact, files = usable[0], bundle.manifest.files
    named = "".join(f"{name} {files[name].sha256}\n" for name in (artefact.file, *artefact.data))
    return Graph(
        model=model,
        artefact=artefact,
        read=bundle.read,
        digest=hashlib.sha256(named.encode()).hexdigest(),
        columns=columns or bundle.manifest.max_tokens,
        buckets=bundle.manifest.buckets,
        threads=threads,
    )


def _open(engine: str, graph: Graph) -> Engine:
    module, _, function = BACKENDS[engine].function.partition(":")
    try:
        made: Engine = getattr(import_module(module), function)(graph)
    except ImportError as error:
        raise EngineError(f"the engine {engine!r} cannot run here: {error}") from None
    return made


def _model(bundle: Bundle, part: str) -> str:
    return f"{bundle.model}:{part}" if part else bundle.model
