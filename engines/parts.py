"""One graph of a model of several: trees beside a sequence model, an encoder beside a ranker."""

from __future__ import annotations

from engines.bundle import Bundle
from engines.engine import Engine, EngineError


def open_part(
    bundle: Bundle, part: str, engine: str = "auto", columns: int = 4096, threads: int = 1
) -> Engine:
    """The engine of a part of a bundle, its file verified; not warm yet.

    `columns` bounds the second axis of its inputs. Raises EngineError where the bundle has no such part for the engine.
    """
    found = bundle.manifest.parts.get(part)
    if found is None:
        raise EngineError(
            f"{bundle.model} has no part {part!r}, only {', '.join(bundle.manifest.parts) or 'none'}"
        )
    wanted = "onnxruntime" if engine == "auto" else engine
    artefact = found.get(wanted)
    if wanted != "onnxruntime" or artefact is None:
        raise EngineError(
            f"no backend of this build runs {part!r} of {bundle.model} on {wanted!r}; use onnxruntime"
        )
    from engines.onnx_cpu import OnnxCpu  # a test with `tiny` loads no runtime

    return OnnxCpu(bundle.read(artefact.file), artefact.precision, columns, threads)
