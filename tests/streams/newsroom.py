"""A newsroom for tests of trends and alerts: headlines counted in the store as the news pipeline counts them."""

from __future__ import annotations

import json
import zlib

from streams.alerts import Alerts
from streams.guard import Guard, Item
from streams.records import Signal, as_time, encode
from streams.settings import Settings
from streams.state.store import Store
from streams.windows.buckets import SIZES, start_of

LETTERS = {"negative": "g", "neutral": "n", "positive": "p"}
PARTITIONS = 4


class Newsroom:
    """Headlines in, alert records out, by a clock of the test's own. Times are seconds since 1970."""

    def __init__(self, url: str, prefix: str) -> None:
        self.settings = Settings(prefix=prefix)
        self.store = Store(url, prefix)
        self.topic = self.settings.topic("signals")
        self.offsets = dict.fromkeys(range(PARTITIONS), -1)
        self.written = 0

    def worker(self) -> Guard[Signal]:
        """An alerts worker."""
        return Guard(Alerts(self.settings, self.store), self.store, {self.topic: Signal})

    def headline(
        self, at: float, symbol: str = "ACME", label: str = "negative", *, now: float = 0, copy_of: str = ""
    ) -> Item:
        """Count a headline that is read at `now` (else at its own time); its signal, ready for a worker."""
        self.written += 1
        entity, ts, name = f"symbol:{symbol}", round(at * 1000), f"n{self.written}"
        line = {
            "id": name,
            "ts": as_time(at).isoformat(),
            "title": f"{symbol} falls, take {self.written}",
            "source": f"outlet {self.written % 3}",
            "url": "",
            "sentiment": {"label": label, "p": [0.9, 0.05, 0.05]},
            "entities": [{"symbol": symbol, "name": f"{symbol} Inc.", "label": label, "p": 0.9}],
            "story": copy_of or name,
            "duplicate_of": copy_of or None,
        }
        pipe = self.store.client.pipeline()
        for about in ("market", entity):
            for size in SIZES.values():
                start = start_of(ts, size.width) // 1000
                letters = (
                    LETTERS[label]
                    + ("" if copy_of else "s")
                    + ("b" if label == "negative" and not copy_of else "")
                )
                for letter in letters:
                    pipe.hincrby(
                        self.store.keys.trend(about, size.name, start_of(ts, size.slice)),
                        f"{start}:{letter}",
                        1,
                    )
            pipe.zadd(self.store.keys.feed(about), {json.dumps(line): ts})
        watermark = self.store.keys.watermark(self.settings.topic("news"))
        pipe.hset(watermark, mapping={"0": ts, "0:at": round((now or at) * 1000)})
        pipe.execute()
        return self.signal(at, entity, -0.85 if label == "negative" else 0.85, name)

    def signal(self, at: float, entity: str, value: float, ref: str, kind: str = "sentiment") -> Item:
        """A signal's record at the next offset of its entity's partition."""
        partition = zlib.crc32(entity.encode()) % PARTITIONS
        previous = self.offsets[partition]
        self.offsets[partition] += 1
        record = Signal(
            id=f"{ref}:{kind}:{entity}",
            ts=as_time(at),
            kind=kind,  # type: ignore[arg-type]
            entity=entity,
            value=value,
            baseline=0.0,
            severity="warning" if value < 0 else "info",
            evidence=[ref],
        )
        key = entity.encode()
        return Item(
            self.topic,
            "life",
            partition,
            previous + 1,
            key,
            encode(record),
            previous if previous >= 0 else None,
        )

    def judge(self, worker: Guard[Signal], items: list[Item], now: float) -> None:
        """One batch through the guard."""
        worker.prepare(items, now)
        worker.commit(items, now)

    def tick(self, worker: Guard[Signal], now: float, partitions: range = range(PARTITIONS)) -> None:
        """The timer of a worker that owns these partitions."""
        worker.pipeline.tick(self.store, {self.topic: list(partitions)}, now)

    def published(self) -> list[dict[str, object]]:
        """The records in the outboxes, each partition's in order."""
        lines = [
            json.loads(raw)
            for partition in range(PARTITIONS)
            for raw in self.store.client.lrange(self.store.keys.outbox("alerts", partition), 0, -1)
        ]
        assert {line["topic"] for line in lines} <= {self.settings.topic("alerts")}
        records = [json.loads(line["value"]) for line in lines]
        assert [line["key"] for line in lines] == [record["fingerprint"] for record in records]
        return records

    def wipe(self) -> None:
        """The store loses everything."""
        for key in self.store.client.scan_iter(f"{self.store.keys.prefix}:*", 1000):
            self.store.client.delete(key)
