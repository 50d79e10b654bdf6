"""`tapewatch bench engine`: what our inference path costs and gains, beside named rivals in the same run.

The active news bundle, one inference thread, on the engine of the setting TAPEWATCH_ENGINE (`--engine NAME`).
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from engines.backends import BACKENDS, missing, open_engine
from engines.bundle import Bundle, active_folder, open_bundle
from engines.engine import EngineError
from engines.text import TextClassifier, from_bundle
from engines.threads import cores
from streams.settings import read_settings
from tests.benchmarks import engine_callers, engine_paths, engine_proof, engine_swap
from tests.benchmarks.engine_texts import headlines
from tests.benchmarks.rows import row


def run(rounds: int = 5) -> list[dict[str, Any]]:
    """The figures, as the contract's `bench` prints them."""
    settings = read_settings()
    bundle = open_bundle(active_folder(settings.bundles, "news"))
    ours = from_bundle(bundle, settings.engine)
    ours.warm()
    bare = open_engine(bundle, ours.engine.rpartition("-")[0], bundle.manifest.max_tokens)
    bare.warm()
    found = []
    found += _said("throughput", engine_paths.run(bundle, ours, bare, _others(bundle, ours.engine), rounds))
    found += _said("single callers", engine_callers.run(ours, bare, rounds))
    found += _said("hot swap", engine_swap.run(bundle, settings.engine, rounds))
    found += _said("threads", _gil(ours, rounds))
    ours.close()
    bare.close()
    found += _said("parity", engine_proof.parity(bundle))
    found += _said("plans", engine_proof.plans(settings.bundles))
    found += _said("footprint", engine_proof.footprint(settings, rounds))
    return found


def _others(bundle: Bundle, mine: str) -> dict[str, TextClassifier]:
    """Every other engine that can run the bundle here, warm."""
    found = {}
    for name in BACKENDS:
        if missing(name) is not None or mine.startswith(f"{name}-"):
            continue
        try:
            found[name] = from_bundle(bundle, name)
            found[name].warm()
        except EngineError as error:
            print(f"{name} not measured: {error}", file=sys.stderr)
    return found


def _gil(model: TextClassifier, rounds: int) -> list[dict[str, Any]]:
    """How much of its speed a Python thread keeps while an engine of one thread runs in another."""
    if cores() < 2:
        print("the GIL not measured: it takes two cores", file=sys.stderr)
        return []
    _, texts = headlines(64)
    counted, ended = [0], threading.Event()

    def count() -> None:
        while not ended.is_set():
            counted[0] += 1

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    shares = []
    for _ in range(rounds):
        speeds = []
        for work in (lambda: time.sleep(0.3), lambda: model.probabilities(texts)):
            before, began = counted[0], time.perf_counter()
            work()
            speeds.append((counted[0] - before) / (time.perf_counter() - began))
        shares.append(speeds[1] / speeds[0])
    ended.set()
    counter.join()
    return [
        row(
            "engine.python_speed_during_run",
            shares,
            "share",
            against="the same thread while the engine is idle",
        )
    ]


def _said(part: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    print(f"{part}: " + ", ".join(f"{one['figure']} {one['value']}" for one in rows), file=sys.stderr)
    return rows
