"""What the crash suite sends through each pipeline, and how what became of it is counted in the store."""

from __future__ import annotations

import gzip
import json
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streams.guard import Guard
from streams.payments.features import FEATURES
from streams.payments.ledger import FRAUD, RECORD
from streams.pipelines import kinds
from streams.settings import Settings
from streams.state.recommended import recommended
from streams.state.store import Store
from streams.transactions import TransactionsPipeline
from streams.windows.buckets import FIELDS, decode
from tests.streams.tills import Tills

SAMPLE = Path(__file__).resolve().parents[2] / "streams" / "launch" / "samples" / "news.jsonl.gz"
POISON = (b"{", b'{"id": 7}', b"\xff\xfe\x00")


class Load(ABC):
    """Records for one pipeline."""

    pipeline: str
    source: str
    derived: str
    key: str  # the field that is the record's key, the id where there is no such field
    poison: tuple[bytes, ...]

    @abstractmethod
    def records(self, count: int) -> Iterator[dict[str, Any]]:
        """The fields of so many records, but for `id` and `ts`."""

    @abstractmethod
    def counted(self, store: Store) -> int:
        """How many records the state has counted."""

    @abstractmethod
    def verify(self, settings: Settings, store: Store, read: Sequence[bytes]) -> None:
        """Assert that the state is what the records read from the source topic make it."""


def titles(count: int) -> list[str]:
    """Real headlines, each made one of its own by a number when the sample is used up."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        found = [json.loads(line)["title"] for line in lines]
    return [
        found[i % len(found)] + (f" ({i // len(found)})" if i >= len(found) else "") for i in range(count)
    ]


class News(Load):
    """Headlines."""

    pipeline = "news"
    source = "news"
    derived = "news.scored"
    key = ""
    poison = (*POISON, b'{"id":"x","ts":"9999-01-01T00:00:00Z","source":"s","title":"t"}')

    def records(self, count: int) -> Iterator[dict[str, Any]]:
        for title in titles(count):
            yield {"source": "test", "title": title}

    def counted(self, store: Store) -> int:
        """Headlines in the market's daily buckets."""
        total = 0
        for key in store.client.scan_iter(f"{store.keys.prefix}:trend:1d:market:*"):
            found: Any = store.client.hgetall(key)
            fields = [(name.decode(), int(count)) for name, count in found.items()]
            for counts in decode(fields).values():
                total += sum(counts.get(FIELDS[letter], 0) for letter in "gnp")
        return total

    def verify(self, settings: Settings, store: Store, read: Sequence[bytes]) -> None:
        """The counts say it all."""


class Transactions(Load):
    """Payments of few accounts at fewer terminals."""

    pipeline = "transactions"
    source = "transactions"
    derived = "transactions.scored"
    key = "account"
    poison = (
        *POISON,
        b'{"id":"x","ts":"9999-01-01T00:00:00Z","account":"a","terminal":"t","amount":1}',
        b'{"id":"x","ts":"2026-01-01T00:00:00Z","account":"a","terminal":"t","amount":1e999}',
    )

    def records(self, count: int) -> Iterator[dict[str, Any]]:
        generator = random.Random(count)
        for _ in range(count):
            yield {
                "account": f"a{generator.randrange(60)}",
                "terminal": f"t{int(20 * generator.random() ** 2)}",
                "amount": generator.randrange(1, 50_000) / 100,
                "country": generator.choice(("DE", "GB", "US")),
            }

    def counted(self, store: Store) -> int:
        """Payments in the accounts' logs; the terminals' logs hold as many."""
        accounts, terminals = (self._logged(store, side) for side in ("account", "terminal"))
        assert accounts == terminals
        return accounts

    def verify(self, settings: Settings, store: Store, read: Sequence[bytes]) -> None:
        """The windows of each account and terminal hold what is on the topic, to the cent."""
        paid: dict[tuple[str, str], list[int]] = defaultdict(list)
        for raw in read:
            try:
                record = json.loads(raw)
                fields = ((side, record[side]) for side in ("account", "terminal"))
                amount = round(record["amount"] * 100)
            except (ValueError, KeyError, TypeError, OverflowError):
                continue  # poison
            if record["id"] != "x":
                for field in fields:
                    paid[field].append(amount)
        tills, now = Tills(store.url, settings.prefix), time.time()
        pipeline = TransactionsPipeline(tills.settings, store)
        worker: Guard[Any] = Guard(pipeline, store, kinds("transactions", tills.settings))
        probes = [
            tills.payment(f"probe-{side}-{name}", int(now * 1000), name if side == "account" else "probe",
                          name if side == "terminal" else "probe", 0, life="probe")
            for side, name in paid
        ]  # fmt: skip
        assert probes
        probes.sort(key=lambda probe: (probe.partition, probe.offset))
        tills.through(worker, probes, now)
        for probe in probes:
            _, side, name = probe.record.id.split("-", 2)
            assert probe.prepared is not None
            amounts, row = paid[side, name], probe.prepared.payload.judged.row.values
            found = [row[FEATURES.index(f"{side}_{what}")] for what in ("count_1d", "sum_1d", "max_30d")]
            assert found == [len(amounts), sum(amounts) / 100, max(amounts) / 100], (side, name)

    def _logged(self, store: Store, side: str) -> int:
        total = 0
        for key in store.client.scan_iter(f"{store.keys.prefix}:payments:{side}:*"):
            log: Any = store.client.get(key)
            total += sum(kind < FRAUD for *_, kind, _ in RECORD.iter_unpack(log[8:]))
        return total


class Recommendations(Load):
    """Interactions of a few dozen customers with as many items."""

    pipeline = "recommendations"
    source = "interactions"
    derived = "recommendations"
    key = "customer"
    poison = (*POISON, b'{"id":"x","ts":"2026-01-01T00:00:00Z","customer":"c","item":"i","kind":"steal"}')

    def records(self, count: int) -> Iterator[dict[str, Any]]:
        """A dismissed item is dismissed once and met by nobody else, so that dismissals can be counted."""
        generator = random.Random(count)
        for index in range(count):
            kind = generator.choices(("view", "click", "buy", "dismiss"), (50, 30, 18, 2))[0]
            item = f"d{count}-{index}" if kind == "dismiss" else f"i{generator.randrange(80)}"
            yield {"customer": f"c{generator.randrange(40)}", "item": item, "kind": kind}

    def counted(self, store: Store) -> int:
        """Interactions in the demand, and dismissals in the customers' hashes."""
        asked: Any = store.client.hvals(store.keys.ever())
        total = sum(map(int, asked))
        for key in store.client.scan_iter(store.keys.met("*")):
            flags: Any = store.client.hvals(key)
            total += sum(b"d" in text for text in flags)
        return total

    def verify(self, settings: Settings, store: Store, read: Sequence[bytes]) -> None:
        """Each item was asked for as often as the topic says, and nobody is shown what is owned or dismissed."""
        asked: Counter[str] = Counter()
        gone: dict[str, set[str]] = defaultdict(set)
        for raw in read:
            try:
                record = json.loads(raw)
                customer, item, kind = record["customer"], record["item"], record["kind"]
            except (ValueError, KeyError, TypeError):
                continue  # poison
            if kind in ("buy", "dismiss"):
                gone[customer].add(item)
            if kind in ("view", "click", "buy"):
                asked[item] += 1
        found: Any = store.client.hgetall(store.keys.ever())
        assert asked == {item.decode(): int(times) for item, times in found.items()}
        for customer, items in gone.items():
            shown = {place["item"] for place in recommended(store, customer, 50)}
            assert shown
            assert not shown & items, customer


NEWS = News()
TRANSACTIONS = Transactions()
RECOMMENDATIONS = Recommendations()
LOADS: tuple[Load, ...] = (NEWS, TRANSACTIONS, RECOMMENDATIONS)
