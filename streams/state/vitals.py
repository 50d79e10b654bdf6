"""How the machine is, as the store knows it: heartbeats, outcomes, memory, what is replayed. Never writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from streams.state.store import Store, as_text

S = TypeVar("S")


class Worker(Struct, frozen=True):
    """A worker's heartbeat; times in unix seconds."""

    pipeline: str
    at: float
    host: str = ""
    pid: int = 0
    started_at: float = 0.0
    engine: str = ""
    model: str = ""
    lag: dict[str, int] = {}
    rate: float = 0.0
    batch_ms: float = 0.0
    store_away_since: float | None = None
    metrics: str = ""

    @property
    def behind(self) -> int:
        """Records that wait for this worker."""
        return sum(self.lag.values())


class Replay(Struct, frozen=True):
    """That what flows is a bundled sample, and whether it is paused."""

    sample: str = ""
    since: float = 0.0
    paused: str | None = None
    broker_mb: float = 0.0
    bound_mb: float = 0.0


@dataclass(frozen=True)
class Health:
    """How the machine is: workers, what became of the records, the store's memory, the replay."""

    workers: list[Worker] = field(default_factory=list)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    used_bytes: int = 0
    limit_bytes: int = 0
    replay: Replay | None = None

    def of(self, pipeline: str) -> list[Worker]:
        """The workers of a pipeline."""
        return [worker for worker in self.workers if worker.pipeline == pipeline]

    @property
    def dead_letters(self) -> int:
        """Dead letters of all pipelines."""
        return sum(counts.get("dead_letter", 0) for counts in self.outcomes.values())


def health(store: Store, pipelines: Iterable[str] = ("news", "transactions", "alerts")) -> Health:
    """The workers that still beat, the outcomes of these pipelines, the store's memory, the replay."""
    names, client = list(pipelines), store.client
    known: Any = store.call(lambda: client.zrange(store.keys.workers(), 0, -1))
    pipe = client.pipeline(transaction=False)
    pipe.mget([store.keys.replay(), *known])
    pipe.info("memory")
    for name in names:
        pipe.hgetall(store.keys.outcomes(name))
    (replay, *beats), memory, *outcomes = store.call(pipe.execute)
    return Health(
        workers=sorted(
            (beat for raw in beats if (beat := decoded(raw, Worker))),
            key=lambda beat: (beat.pipeline, beat.host, beat.pid),
        ),
        outcomes={
            name: {as_text(key): int(count) for key, count in counts.items()}
            for name, counts in zip(names, outcomes, strict=True)
        },
        used_bytes=int(memory.get("used_memory", 0)),
        limit_bytes=int(memory.get("maxmemory", 0)),
        replay=decoded(replay, Replay),
    )


def decoded(raw: Any, kind: type[S]) -> S | None:
    """What these bytes hold, or None where they are missing or of another version."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
