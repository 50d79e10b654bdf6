"""A worker's heartbeat: its state once a second in the store, as the dashboard and `doctor` show it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from streams.metrics import Metrics
from streams.pipelines import PIPELINES
from streams.state.store import Store
from streams.transport import Intake

EVERY = 1.0  # seconds
KEPT = 15  # seconds


class Heartbeat:
    """Of one worker; counts what it does."""

    def __init__(self, name: str, pipeline: object, store: Store, metrics: Metrics, started: float) -> None:
        self._name, self._pipeline = name, pipeline
        self._store, self._metrics = store, metrics
        self._started = started
        self._done, self._rate, self._batch_ms = 0, 0.0, 0.0

    def note(self, records: int, seconds: float) -> None:
        """A batch of so many records was done; it took so long from its fetching to its acknowledgement."""
        self._done += records
        self._batch_ms = seconds * 1000

    def beat(self, intake: Intake | None, away_since: float | None, now: float) -> dict[str, Any]:
        """The state since the last one; `away_since`: since when the store has been away, in seconds."""
        self._rate = 0.7 * self._rate + 0.3 * self._done / EVERY
        self._done = 0
        lag = intake.lag() if intake else {}
        self._metrics.lag(self._name, lag)
        return {
            "pipeline": self._name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at": self._started,
            "at": now,
            "engine": getattr(self._pipeline, "engine", ""),
            "model": getattr(self._pipeline, "model", ""),
            "assigned": len(intake.assigned()) if intake else 0,
            "lag": {f"{tp.topic}:{tp.partition}": behind for tp, behind in lag.items()},
            "rate": round(self._rate, 2),
            "batch_ms": round(self._batch_ms, 2),
            "store_away_since": away_since,
            "metrics": self._metrics.address,
            "sources": list(PIPELINES[self._name].sources),
        }

    def send(self, beat: Mapping[str, Any], now: float) -> None:
        """Write it; raises Unavailable."""
        key = self._store.keys.worker(self._name, f"{socket.gethostname()}-{os.getpid()}")
        pipe, known = self._store.client.pipeline(transaction=False), self._store.keys.workers()
        pipe.set(key, json.dumps(beat), ex=KEPT)
        pipe.zadd(known, {key: now})
        pipe.zremrangebyscore(known, 0, now - KEPT)
        pipe.expire(known, 86_400)
        self._store.call(pipe.execute)
