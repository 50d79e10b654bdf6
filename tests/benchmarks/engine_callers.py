"""Latency rows of `tapewatch bench engine`: single callers on the micro-batcher.

On an idle engine beside a bare call of the same engine on tokens that are ready, one after the other. Under one
Poisson trace at 30 % and 80 % of the capacity that our path was measured at just before, beside a batcher that collects
for a fixed window of 50 ms and then runs all that it has, on the same path. A time counts from when the trace says that
a caller comes.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

import numpy as np

from engines.batcher import Batcher
from engines.engine import Engine
from engines.text import TextClassifier, padded
from tests.benchmarks.engine_texts import headlines
from tests.benchmarks.rows import percentile, row

PAIRS = 100  # single calls of a round, with and without us
SECONDS = 6.0  # of a trace
WINDOW = 0.05  # seconds
CALIBRATION = 128  # texts
SEED = 7

Submit = Callable[[str], Future[Any]]


def batcher_of(model: TextClassifier) -> Batcher[str, Any]:
    """The micro-batcher as a news worker makes it."""
    return Batcher(
        lambda texts: list(model.probabilities(texts)),
        lambda text: len(model.tokens([text])[0]),
        rows=model.limits.rows,
        tokens=model.limits.tokens,
    )


class Windowed:
    """The rival: from the first item on it waits 50 ms, and then runs what has come, by the same path."""

    def __init__(self, model: TextClassifier) -> None:
        self._model = model
        self._queue: queue.SimpleQueue[tuple[str, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, text: str) -> Future[Any]:
        """The answer to come."""
        future: Future[Any] = Future()
        self._queue.put((text, future))
        return future

    def close(self) -> None:
        """End when all is answered."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            time.sleep(WINDOW)
            batch = [first]
            while not self._queue.empty():
                found = self._queue.get()
                if found is None:
                    self._queue.put(None)
                    break
                batch.append(found)
            for (_, future), p in zip(
                batch, self._model.probabilities([text for text, _ in batch]), strict=True
            ):
                future.set_result(p)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start at which callers come: a Poisson process."""
    generator = random.Random(seed)
    gaps = itertools.accumulate(generator.expovariate(rate) for _ in range(int(rate * seconds * 2) + 10))
    return list(itertools.takewhile(lambda at: at < seconds, gaps))


def replay(submit: Submit, trace: Sequence[float], texts: Sequence[str]) -> list[tuple[float, float, bool]]:
    """When each caller came (perf_counter), how long it waited, and whether it was answered; open loop."""
    began = time.perf_counter()
    found: list[tuple[float, float, bool]] = []
    futures = []

    def note(came: float, done: Future[Any]) -> None:
        found.append((came, time.perf_counter() - came, done.exception() is None))

    for at, text in zip(trace, itertools.cycle(texts), strict=False):
        came = began + at
        time.sleep(max(0.0, came - time.perf_counter()))
        futures.append(submit(text))
        futures[-1].add_done_callback(partial(note, came))
    wait(futures)
    return found


def capacity(model: TextClassifier, texts: Sequence[str]) -> float:
    """Texts a second of our path, now."""
    began = time.perf_counter()
    model.probabilities(texts[:CALIBRATION])
    return CALIBRATION / (time.perf_counter() - began)


def run(model: TextClassifier, bare: Engine, rounds: int) -> list[dict[str, Any]]:
    """The rows; `bare` is the engine that `model` runs on, called without us."""
    _, texts = headlines(2000)
    return [*_idle(model, bare, texts, rounds), *_poisson(model, texts, rounds)]


def _idle(model: TextClassifier, bare: Engine, texts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    ready = [padded([ids]) for ids in model.tokens(texts[:PAIRS])]
    with_us: list[float] = []
    without: list[float] = []
    ratios = []
    batcher = batcher_of(model)
    for _ in range(rounds):
        mine, theirs = [], []
        for text, arrays in zip(texts, ready, strict=False):
            began = time.perf_counter()
            batcher.ask(text)
            between = time.perf_counter()
            bare.infer(arrays)
            mine.append(between - began)
            theirs.append(time.perf_counter() - between)
        ratios.append(percentile(mine, 0.99) / percentile(theirs, 0.99))
        with_us += mine
        without += theirs
    batcher.close()
    p99 = percentile(with_us, 0.99) / percentile(without, 0.99)
    median = float(np.median(with_us) / np.median(without))
    against = "bare single inference, tokens ready, same engine"
    return [
        row("engine.single_p50_to_bare", ratios, value=median, n=len(with_us), against=against),
        row("engine.single_p99_to_bare", ratios, value=p99, n=len(with_us), against=against, at_most=1.5),
    ]


def _poisson(model: TextClassifier, texts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    found = []
    for share, bar in ((0.3, 0.5), (0.8, 1.0)):
        ours: list[float] = []
        theirs: list[float] = []
        ratios = []
        for number in range(rounds):
            trace = arrivals(share * capacity(model, texts), SECONDS, SEED + number)
            batcher, windowed = batcher_of(model), Windowed(model)
            mine = [taken for _, taken, _ in replay(batcher.submit, trace, texts)]
            rival = [taken for _, taken, _ in replay(windowed.submit, trace, texts)]
            batcher.close()
            windowed.close()
            ratios.append(percentile(mine, 0.99) / percentile(rival, 0.99))
            ours += mine
            theirs += rival
        name, against = (
            f"engine.poisson_{share:.0%}".rstrip("%"),
            "a batcher that waits 50 ms, same trace and engine",
        )
        ms = [1000 * percentile(ours, 0.99)]
        found += [
            row(f"{name}_p99_to_window", ratios, n=len(ours), against=against, at_most=bar),
            row(f"{name}_p99", ms, "ms", n=len(ours), against=f"{share:.0%} of our capacity, open loop"),
        ]
    return found
