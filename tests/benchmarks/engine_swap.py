"""Hot-swap rows of `tapewatch bench engine`: another version is activated while single callers come.

Two versions of the active bundle (the same weights) are activated in turn while a Poisson trace at 40 % of our capacity
runs. A request counts as during a swap when it came between the activation and the hand-over; the others are steady.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engines.batcher import Batcher
from engines.bundle import Bundle, activate, publish
from engines.swap import HotSwap
from engines.text import TextClassifier, open_serving
from tests.benchmarks.engine_callers import arrivals, capacity, replay
from tests.benchmarks.engine_texts import headlines
from tests.benchmarks.rows import percentile, row

SHARE = 0.4  # of our capacity
STEADY = 3.0  # seconds before each activation
AFTER = 1.0  # seconds after the last hand-over


def run(bundle: Bundle, engine: str, rounds: int) -> list[dict[str, Any]]:
    """The rows."""
    _, texts = headlines(2000)
    with tempfile.TemporaryDirectory() as folder:
        bundles = Path(folder)
        for version in ("1", "2"):
            _again(bundle, bundles, version)
        task = bundle.manifest.task
        activate(bundles, task, "1")
        models = open_serving(bundles, task, engine, 1, bundle.manifest.labels)
        try:
            return _measure(models, bundles, task, texts, rounds)
        finally:
            models.close()


def _measure(
    models: HotSwap[TextClassifier], bundles: Path, task: str, texts: Sequence[str], rounds: int
) -> list[dict[str, Any]]:
    def score(chosen: Sequence[str]) -> list[Any]:
        with models.use() as model:
            return list(model.probabilities(chosen))

    def size(text: str) -> int:
        with models.use() as model:
            return len(model.tokens([text])[0])

    limits = models.now.limits
    batcher: Batcher[str, Any] = Batcher(score, size, rows=limits.rows, tokens=limits.tokens)
    rate, swaps = SHARE * capacity(models.now, texts), list[tuple[float, float]]()
    came: list[tuple[float, float, bool]] = []
    ended = threading.Event()

    def callers() -> None:
        seed = 0
        while not ended.is_set():
            came.extend(replay(batcher.submit, arrivals(rate, 1.0, seed), texts))
            seed += 1

    thread = threading.Thread(target=callers)
    thread.start()
    try:
        for number in range(rounds):
            time.sleep(STEADY)
            began = time.perf_counter()
            activate(bundles, task, "21"[number % 2])
            if not models.refresh():
                raise RuntimeError("the other version was refused")
            swaps.append((began, time.perf_counter()))
        time.sleep(AFTER)
    finally:
        ended.set()
        thread.join()
        batcher.close()
    during = [taken for at, taken, _ in came if any(start <= at <= end for start, end in swaps)]
    steady = [taken for at, taken, _ in came if not any(start <= at <= end for start, end in swaps)]
    failed = float(sum(not answered for *_, answered in came))
    each = [
        percentile([taken for at, taken, _ in came if start <= at <= end], 0.99) / percentile(steady, 0.99)
        for start, end in swaps
    ]
    against = f"single callers at {SHARE:.0%} of our capacity, {rounds} swaps"
    return [
        row("engine.swap_failed_requests", [failed], "requests", n=len(came), against=against, at_most=0),
        row(
            "engine.swap_p99_to_steady",
            each,
            value=percentile(during, 0.99) / percentile(steady, 0.99),
            n=len(during),
            against=against,
            at_most=1.5,
        ),
        row(
            "engine.swap_seconds",
            [end - start for start, end in swaps],
            "s",
            against="activation to hand-over",
        ),
    ]


def _again(bundle: Bundle, bundles: Path, version: str) -> None:
    """The bundle once more under another version."""
    staged = bundles / f".{version}"
    shutil.copytree(bundle.folder, staged)
    publish(
        staged,
        msgspec.structs.replace(bundle.manifest, version=version),
        bundles / bundle.manifest.task / version,
    )
