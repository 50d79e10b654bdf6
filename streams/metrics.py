"""Prometheus metrics of a worker: one typed list, and the server of `/metrics`.

| metric | meaning |
|---|---|
| tapewatch_records_total{pipeline, outcome} | records by how they ended, from the store: all workers together |
| tapewatch_stage_seconds{pipeline, stage} | time of a batch in a stage: score, store, publish |
| tapewatch_lag_records{pipeline, topic, partition} | records not done yet, of the partitions that this worker owns |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import ThreadingWSGIServer

from streams.state.store import Store, Unavailable

OUTCOMES = ("scored", "filtered", "duplicate", "dead_letter")
Routes = Mapping[
    str, Callable[[str, Mapping[str, Sequence[str]]], tuple[int, bytes]]
]  # prefix -> status and JSON
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

    def serve(self, host: str, port: int, routes: Routes | None = None) -> str:
        """Serve `/metrics`, and what a pipeline answers over HTTP; port 0 takes a free one.

        Returns the address, raises OSError when the port is taken.
        """
        application = _application(make_wsgi_app(self._registry), routes or {})
        server = make_server(host, port, application, ThreadingWSGIServer, handler_class=_Quiet)
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        self.address = f"{host}:{server.server_address[1]}"
        return self.address


class _Quiet(WSGIRequestHandler):
    """A scrape is no news."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
        """Say nothing."""


def _application(metrics: Any, routes: Routes) -> Any:
    """A WSGI application: the routes by their prefix, the metrics for everything else."""

    def answer(environ: dict[str, Any], start: Any) -> Any:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        for prefix, route in routes.items():
            if path.startswith(prefix) and environ["REQUEST_METHOD"] == "GET":
                status, body = route(
                    unquote(path.removeprefix(prefix)), parse_qs(environ.get("QUERY_STRING", ""))
                )
                words = {200: "200 OK", 400: "400 Bad Request", 404: "404 Not Found"}
                headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
                start(words.get(status, "503 Service Unavailable"), headers)
                return [body]
        return metrics(environ, start)

    return answer


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
