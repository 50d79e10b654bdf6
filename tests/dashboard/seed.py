"""Fills a store with what the pipelines would have written: three hours of headlines, alerts, heartbeats.

Run it to look at the pages without a broker: `python -m tests.dashboard.seed redis://127.0.0.1:6379/0 --live`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from streams.state.store import Store
from streams.windows.buckets import FIELDS, SIZES, expires_at, start_of

LETTERS = {name: letter for letter, name in FIELDS.items()}
COMPANIES = {  # made up, like the outlets
    "ORCH": "Orchard Devices",
    "NIMB": "Nimbus Software",
    "TESS": "Tessera Chips",
    "RIVR": "Rivermart",
    "VOLT": "Voltline Motors",
    "HALE": "Hale Bank",
    "AERO": "Aerolane",
    "PETR": "Petrolis",
    "MEDI": "Medira Pharma",
    "SILI": "Siliqua",
    "STRD": "Stride Sports",
    "LUMI": "Lumina Studios",
    "CMBL": "Cumberland Bank",
    "TELQ": "Telquest",
    "FORG": "Forge Automotive",
    "BREW": "Brewhouse Coffee",
}
OUTLETS = (
    "Harbour Wire",
    "Ledger Daily",
    "Market Post",
    "City Brief",
    "Evening Ticker",
    "The Exchange",
    "Northern Press",
    "Capital Review",
)
TITLES = {
    "negative": (
        "{} cuts its outlook for the year as demand weakens",
        "{} shares slide after quarterly profit misses estimates",
        "{} faces inquiry into its accounting of supplier rebates",
        "{} to close two plants and take a charge of $1.2 billion",
        "Analysts downgrade {} on margin pressure",
        "{} recalls products after reports of faults",
    ),
    "neutral": (
        "{} to report third-quarter results on Thursday",
        "{} names a new chief financial officer",
        "{} schedules its annual meeting for May",
        "{} completes the sale of its regional unit",
        "What to watch in {} earnings this week",
    ),
    "positive": (
        "{} raises its dividend by 8 percent",
        "{} beats estimates on strong orders",
        "{} wins a $3.4 billion government contract",
        "Analysts lift {} price targets after record quarter",
    ),
}
BAD_DAY = "AERO"
BAD_TITLES = (
    "{} halts deliveries after an inspection finds faulty fasteners",
    "Regulator orders checks of {} aircraft",
    "{} shares tumble as airlines ground jets",
    "Airlines seek damages from {} over grounded fleet",
    "{} faces a criminal inquiry over inspection records",
    "Two carriers cancel {} orders",
    "{} suspends its forecast for the year",
    "Suppliers warn of layoffs as {} slows production",
    "Rating agency puts {} on watch for a downgrade",
)


def iso(at: float) -> str:
    """A time on the wire."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def headline(
    number: int, title: str, symbol: str, label: str, at: float, source: str, story: str = ""
) -> dict[str, Any]:
    """A feed entry; with `story` it is a copy of that story's first headline."""
    high = 0.78 + (number * 37 % 20) / 100
    rest = round((1 - high) / 2, 4)
    return {
        "id": f"h-{number}",
        "ts": iso(at),
        "title": title,
        "source": source,
        "url": "",
        "sentiment": {"label": label, "p": [high if label == name else rest for name in TITLES]},
        "entities": [{"symbol": symbol, "name": COMPANIES.get(symbol, symbol), "label": label, "p": high}],
        "scored_at": iso(at + 0.02),
        "story": story or f"s-{number}",
        "duplicate_of": story.replace("s-", "h-") or None,
    }


class Seeder:
    """Writes headlines, alerts and heartbeats as the pipelines do."""

    def __init__(self, store: Store, seed: int = 7) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.number = 0
        self.bad: list[dict[str, Any]] = []

    def history(self, now: float, hours: float = 3.0, every: float = 9.0) -> None:
        """Headlines of the last hours; in the last minutes one company has a bad day."""
        at = now - hours * 3600
        pipe = self.store.client.pipeline(transaction=False)
        while at < now - 1:
            self.one(at, pipe)
            at += self.random.expovariate(1 / every)
        for step in range(16):
            self.bad_headline(now - 200 + step * 11, pipe)
        pipe.execute()

    def one(self, at: float, pipe: Any) -> None:
        """One headline about some company; one in eight comes again from other outlets."""
        weights = [1 / (rank + 1.5) for rank in range(len(COMPANIES))]
        symbol = self.random.choices(list(COMPANIES), weights)[0]
        label = self.random.choices(list(TITLES), (0.24, 0.46, 0.30))[0]
        title = self.random.choice(TITLES[label]).format(COMPANIES[symbol])
        first = self.add(title, symbol, label, at, pipe)
        if self.random.random() < 0.125:
            for copy in range(self.random.randint(1, 3)):
                self.add(title, symbol, label, at + 1 + copy, pipe, story=first["story"])

    def bad_headline(self, at: float, pipe: Any) -> None:
        """One more headline of the company's bad day."""
        title = BAD_TITLES[len(self.bad) % len(BAD_TITLES)].format(COMPANIES[BAD_DAY])
        self.bad.append(self.add(title, BAD_DAY, "negative", at, pipe))

    def add(
        self, title: str, symbol: str, label: str, at: float, pipe: Any, story: str = "", source: str = ""
    ) -> dict[str, Any]:
        """Write one headline: feeds, trend buckets, known entities."""
        self.number += 1
        entry = headline(self.number, title, symbol, label, at, source or self.random.choice(OUTLETS), story)
        keys, line, ms = self.store.keys, json.dumps(entry), int(at * 1000)
        for entity in ("market", f"symbol:{symbol}"):
            pipe.zadd(keys.feed(entity), {line: ms})
            pipe.zremrangebyrank(keys.feed(entity), 0, -1001)
            for size in SIZES.values():
                name = keys.trend(entity, size.name, start_of(ms, size.slice))
                bucket = start_of(ms, size.width) // 1000
                pipe.hincrby(name, f"{bucket}:{LETTERS[label]}", 1)
                if not story:
                    pipe.hincrby(name, f"{bucket}:s", 1)
                    if label == "negative":
                        pipe.hincrby(name, f"{bucket}:b", 1)
                pipe.pexpireat(name, expires_at(size, start_of(ms, size.slice)))
        pipe.zadd(keys.entities(), {f"symbol:{symbol}": ms})
        return entry

    def alert(
        self, identity: str, symbol: str, states: Sequence[tuple[str, float]], evidence: Sequence[dict[str, Any]],
        value: float, expected: float, severity: str = "warning",
    ) -> None:  # fmt: skip
        """An alert that went through these (state, unix time)."""
        keys, (state, at) = self.store.keys, states[-1]
        record = {
            "id": f"{identity}:{len(states)}",
            "ts": iso(at),
            "alert": identity,
            "kind": "sentiment",
            "entity": f"symbol:{symbol}",
            "fingerprint": f"sentiment:symbol:{symbol}",
            "state": state,
            "severity": severity,
            "value": value,
            "baseline": expected,
            "evidence": [item["id"] for item in evidence],
            "version": len(states),
        }
        detail = {
            "headlines": [
                {
                    "id": item["id"], "ts": item["ts"], "title": item["title"], "source": item["source"],
                    "label": item["sentiment"]["label"],
                }
                for item in evidence
            ],
            "title": f"{COMPANIES.get(symbol, symbol)}: {value} negative stories in 5 min, usual {expected}",
            "name": COMPANIES.get(symbol, symbol),
            "outlets": len({item["source"] for item in evidence}),
            "value": value,
            "severity": severity,
            "expected": expected,
            "window_minutes": 5,
            "opened": iso(states[0][1]),
            "history": [
                {"ts": iso(when), "state": name, "version": version, "value": value}
                for version, (name, when) in enumerate(states, 1)
            ],
        }  # fmt: skip
        client = self.store.client
        client.hset(
            keys.alert(identity), mapping={"record": json.dumps(record), "detail": json.dumps(detail)}
        )
        client.zadd(keys.alerts(), {identity: int(at * 1000)})
        if state == "resolved":
            client.hdel(keys.active(), str(record["fingerprint"]))
        else:
            client.hset(keys.active(), str(record["fingerprint"]), identity)

    def alerts(self, now: float) -> None:
        """One that fires, and some that are over."""
        self.alert(
            "a-aerolane", BAD_DAY, [("firing", now - 130)], self.bad[::-1], len(self.bad), 1.4, "critical"
        )
        lines: Any = self.store.client.zrevrange(self.store.keys.feed("market"), 0, -1)
        entries = [json.loads(line) for line in lines]
        for symbol, ago, severity in (
            ("SILI", 3300, "warning"),
            ("VOLT", 5400, "critical"),
            ("MEDI", 8300, "warning"),
        ):
            about = [
                item for item in entries
                if item["entities"][0]["symbol"] == symbol and item["sentiment"]["label"] == "negative"
            ][:6]  # fmt: skip
            states = [("firing", now - ago), ("resolved", now - ago + 900)]
            self.alert(f"a-{symbol.lower()}", symbol, states, about, 6 + ago % 4, 2.1, severity)

    def beat(self, now: float, behind: int = 0, rate: float = 0.1) -> None:
        """Heartbeats of one worker a pipeline, outcomes, watermark, and that this is a replay."""
        keys, pipe = self.store.keys, self.store.client.pipeline(transaction=False)
        for pipeline, engine, model, pid in (
            ("news", "onnxruntime int8", "news-2026.11", 4711), ("alerts", "", "", 4712),
            ("transactions", "onnxruntime", "transactions-2026.11", 4713),
        ):  # fmt: skip
            topic = {"alerts": "tapewatch.signals"}.get(pipeline, f"tapewatch.{pipeline}")
            beat = {
                "pipeline": pipeline, "host": "desk", "pid": pid, "started_at": now - 7200, "at": now, "engine": engine,
                "model": model, "assigned": 4, "lag": {f"{topic}:{n}": behind if n == 0 else 0 for n in range(4)},
                "rate": rate, "batch_ms": 18.4, "store_away_since": None, "metrics": "127.0.0.1:9100",
                "sources": [topic],
            }  # fmt: skip
            pipe.set(keys.worker(pipeline, f"desk-{pid}"), json.dumps(beat), ex=15)
            pipe.zadd(keys.workers(), {keys.worker(pipeline, f"desk-{pid}"): now})
        pipe.hset(keys.outcomes("news"), mapping={"scored": self.number, "duplicate": 12, "dead_letter": 3})
        pipe.hset(keys.outcomes("alerts"), mapping={"scored": self.number})
        pipe.set(keys.replay(), json.dumps({"sample": "news", "since": now - 7200, "paused": None}), ex=15)
        pipe.execute()

    def live(self, now: float) -> dict[str, Any]:
        """One more headline now."""
        pipe = self.store.client.pipeline(transaction=False)
        self.one(now, pipe)
        pipe.execute()
        return {}


def fill(store: Store, now: float) -> Seeder:
    """All of it."""
    seeder = Seeder(store)
    seeder.history(now)
    seeder.alerts(now)
    seeder.beat(now)
    return seeder


def main() -> None:
    """Fill a store, and keep it alive when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--prefix", default="tapewatch")
    parser.add_argument("--live", action="store_true", help="go on: a headline every few seconds, heartbeats")
    parser.add_argument("--every", type=float, default=7.0, help="seconds between headlines, on average")
    options = parser.parse_args()
    seeder = fill(Store(options.url, options.prefix), time.time())
    due = time.time()
    while options.live:
        time.sleep(0.5)
        seeder.beat(time.time(), rate=1 / options.every)
        if time.time() >= due:
            due = time.time() + seeder.random.expovariate(1 / options.every)
            seeder.live(time.time())


if __name__ == "__main__":
    main()
