"""Tills for tests of payments: transactions and labels through real guards on a real store."""

from __future__ import annotations

import json
import random
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.guard import Guard, Item
from streams.payments.features import Payment, add, row, sequence
from streams.payments.history import AccountHistory, History
from streams.pipelines import kinds
from streams.settings import Settings
from streams.state.store import Store
from streams.transactions import Case, TransactionsPipeline, country_code, stand_in

PARTITIONS = 4
DAY = 86_400_000


class Tills:
    """Writes records at the next offsets of their partitions, and takes them through workers."""

    def __init__(self, url: str, prefix: str, **settings: Any) -> None:
        self.settings = Settings(prefix=prefix, engine="tiny", **settings)
        self.store = Store(url, prefix)
        self.offsets: dict[tuple[str, int], int] = {}

    def worker(self, pipeline: TransactionsPipeline | None = None) -> Guard[Any]:
        """A worker that knows nothing yet."""
        made = pipeline or TransactionsPipeline(self.settings, self.store)
        return Guard(made, self.store, kinds("transactions", self.settings))

    def item(self, topic: str, key: str, value: bytes, life: str = "life") -> Item:
        """A record at the end of its partition."""
        partition = zlib.crc32(key.encode()) % PARTITIONS
        name = self.settings.topic(topic)
        previous = self.offsets.get((name + life, partition), -1)
        self.offsets[name + life, partition] = previous + 1
        return Item(
            name, life, partition, previous + 1, key.encode(), value, previous if previous >= 0 else None
        )

    def payment(self, name: str, at: int, account: str, terminal: str, cents: int, **more: Any) -> Item:
        """A transaction; `at` in ms since 1970."""
        life = more.pop("life", "life")
        record = {
            "id": name,
            "ts": stamp(at),
            "account": account,
            "terminal": terminal,
            "amount": cents / 100,
            **more,
        }
        return self.item("transactions", account, json.dumps(record).encode(), life)

    def label(self, name: str, at: int, ref: str, label: str = "fraud", **more: Any) -> Item:
        """A label; `at` in ms since 1970."""
        record = {"id": name, "ts": stamp(at), "subject": "transaction", "ref": ref, "label": label, **more}
        return self.item("labels", ref, json.dumps(record).encode())

    def through(self, worker: Guard[Any], items: Sequence[Item], now: float) -> list[Any]:
        """One batch through the guard as the agent takes it; what would be published."""
        worker.prepare(items, now)
        worker.commit(items, now)
        worker.judge(items, now)
        outs = worker.outputs(items, now)
        worker.keep(items, now)
        return outs

    def copies(self, items: Sequence[Item]) -> list[Item]:
        """The same records as a redelivery brings them."""
        return [
            Item(one.topic, one.life, one.partition, one.offset, one.key, one.raw, one.previous)
            for one in items
        ]


def stamp(at: int) -> str:
    """A time on the wire."""
    return f"{np.datetime64(at, 'ms')}Z"


def row_of(item: Item) -> np.ndarray[Any, Any]:
    """The features that were computed for an item."""
    assert item.prepared is not None
    case = item.prepared.payload
    assert isinstance(case, Case)
    assert case.judged is not None
    return np.array(case.judged.row.values, np.float32)


def sequence_of(item: Item) -> bytes:
    """The sequence that was made for an item."""
    assert item.prepared is not None
    judged: bytes = item.prepared.payload.judged.sequence
    return judged


def stream(
    seed: int,
    count: int,
    start: int,
    span: int,
    *,
    accounts: int,
    terminals: int,
    furthest: int,
    labels: float,
) -> list[dict[str, Any]]:
    """Payments and labels in order of arrival: some late, some sent twice, labels at their own times."""
    generator = random.Random(seed)
    arrivals: list[tuple[int, dict[str, Any]]] = []
    for index in range(count):
        arrival = start + generator.randrange(span)
        lag = generator.randrange(furthest) if furthest and generator.random() < 0.2 else 0
        payment = {
            "id": f"p{index}",
            "at": arrival - lag,
            "account": f"a{generator.randrange(accounts)}",
            "terminal": f"t{int(terminals * generator.random() ** 3)}",
            "cents": generator.choice((generator.randrange(1, 5_000), generator.randrange(1, 500_000))),
            "country": generator.choice(("", "DE", "GB", "US")),
        }
        arrivals.append((arrival, payment))
        if generator.random() < 0.03:
            arrivals.append((arrival + generator.randrange(span // 50), payment | {"twice": True}))
        if generator.random() < labels:
            known = arrival + generator.randrange(DAY, 20 * DAY)
            arrivals.append((known, {"id": f"l{index}", "at": known, "ref": f"p{index}", "of": payment}))
    return [one for _, one in sorted(arrivals, key=lambda pair: pair[0])]


def offline(records: Sequence[dict[str, Any]]) -> dict[str, tuple[np.ndarray[Any, Any], bytes]]:
    """Features and sequence of each payment by its id, had the records arrived in exactly this order."""
    accounts: dict[str, AccountHistory] = defaultdict(AccountHistory)
    terminals: dict[str, History] = defaultdict(History)
    labels: dict[str, int] = {}
    paid: dict[str, dict[str, Any]] = {}
    found: dict[str, tuple[np.ndarray[Any, Any], bytes]] = {}

    def tell(payment: dict[str, Any], known: int) -> None:
        accounts[payment["account"]].add_fraud(payment["at"], known)
        terminals[payment["terminal"]].add_fraud(payment["at"], known)

    for one in records:
        if "ref" in one:
            if one["ref"] in paid:
                tell(paid[one["ref"]], one["at"])
            else:
                labels[one["ref"]] = one["at"]
        elif one["id"] not in paid:
            paid[one["id"]] = one
            account, terminal = accounts[one["account"]], terminals[one["terminal"]]
            payment = Payment(
                one["at"], one["cents"], stand_in(one["terminal"]), country_code(one["country"])
            )
            seen = row(account, terminal, payment)
            found[one["id"]] = np.array(seen.values, np.float32), sequence(account, seen.step, one["at"])
            terminal.add(one["at"], one["cents"], add(account, payment, seen.unusual, seen.step))
            if one["id"] in labels:
                tell(one, labels[one["id"]])
    return found
