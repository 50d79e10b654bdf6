"""Prometheus metrics of a worker: one typed list, and the server of `/metrics`.

| metric | meaning |
|---|---|
| tapewatch_records_total{pipeline, outcome} | records by how they ended, from the store: all workers together |
| tapewatch_stage_seconds{pipeline, stage} | time of a batch in a stage: score, store, judge, publish |
| tapewatch_lag_records{pipeline, topic, partition} | records not done yet, of the partitions that this worker owns |
| tapewatch_model_swaps_total{pipeline, outcome} | other versions of the model that were activated: done, or refused |
| tapewatch_engine_fallbacks_total{pipeline, preferred, taken} | models that `auto` opened on another engine |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily

from engines.backends import FALLBACKS
from streams.endpoint import Answer, Endpoint, Lookup
from streams.state.store import Store, Unavailable

OUTCOMES = ("scored", "filtered", "duplicate", "dead_letter")
STAGE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds


class Metrics:
    """The metrics of one worker process."""

    def __init__(self, pipeline: str, store: Store | None = None) -> None:
        self.address = ""
        self._registry = CollectorRegistry()
        self._stage = Histogram(
            "tapewatch_stage_seconds",
            "Time of a batch in a stage",
            ["pipeline", "stage"],
            registry=self._registry,
            buckets=STAGE_BOUNDS,
        )
        self._lag = Gauge(
            "tapewatch_lag_records",
            "Records between the commit and the log's end",
            ["pipeline", "topic", "partition"],
            registry=self._registry,
        )
        self._swaps = Counter(
            "tapewatch_model_swaps_total",
            "Other versions of the model that were activated",
            ["pipeline", "outcome"],
            registry=self._registry,
        )
        self._registry.register(_Fallbacks(pipeline))
        if store is not None:
            self._registry.register(_Outcomes(pipeline, store))

    def stage(self, pipeline: str, stage: str, seconds: float) -> None:
        """Note the time that a batch spent in a stage."""
        self._stage.labels(pipeline, stage).observe(seconds)

    def lag(self, pipeline: str, lag: Mapping[Any, int]) -> None:
        """Note the lag of the partitions owned now (and of no other)."""
        self._lag.clear()
        for tp, behind in lag.items():
            self._lag.labels(pipeline, tp.topic, str(tp.partition)).set(behind)

    def swap(self, pipeline: str, done: bool) -> None:
        """Note that another version of the model took over, or was refused."""
        self._swaps.labels(pipeline, "done" if done else "refused").inc()

    def serve(
        self,
        host: str,
        port: int,
        posts: Mapping[str, Answer] | None = None,
        gets: Mapping[str, Lookup] | None = None,
    ) -> str:
        """Serve `/metrics`, and what a pipeline answers to POST and GET; port 0 takes a free one.

        Returns the address, raises OSError when the port is taken.
        """
        self.address = Endpoint(self._registry, posts or {}, gets).serve(host, port)
        return self.address


class _Fallbacks:
    """The count that the engines keep of this process; a Prometheus client is none of their business."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One sample for each pair of engines."""
        family = CounterMetricFamily(
            "tapewatch_engine_fallbacks",
            "Models that auto opened on another engine than the one it prefers",
            labels=["pipeline", "preferred", "taken"],
        )
        for (preferred, taken), count in FALLBACKS.items():
            family.add_metric([self._pipeline, preferred, taken], count)
        yield family


class _Outcomes:
    """Reads the counts from the store at each scrape: a process's own counters would die with it."""

    def __init__(self, pipeline: str, store: Store) -> None:
        self._pipeline = pipeline
        self._store = store

    def describe(self) -> list[CounterMetricFamily]:
        """Nothing is read when the collector is registered."""
        return [self._family()]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counts now; no sample at all while the store is away, so that no counter seems to fall."""
        family = self._family()
        try:
            counts = self._store.outcomes(self._pipeline)
        except Unavailable:
            return
        for outcome in OUTCOMES:
            family.add_metric([self._pipeline, outcome], counts.get(outcome, 0))
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            "tapewatch_records", "Records by how they ended", labels=["pipeline", "outcome"]
        )
