"""One graph of a model of several: trees beside a sequence model, an encoder beside a ranker."""

from __future__ import annotations

from engines.backends import open_engine
from engines.bundle import Bundle
from engines.engine import Engine


def open_part(
    bundle: Bundle, part: str, engine: str = "auto", columns: int = 4096, threads: int = 1
) -> Engine:
    """The engine of a part of a bundle, its file verified; not warm yet.

    `columns` bounds the second axis of its inputs. Raises EngineError where the bundle has no such part for the engine.
    """
    return open_engine(bundle, engine, columns, threads, part)
