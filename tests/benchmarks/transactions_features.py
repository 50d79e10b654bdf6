"""The feature step alone: payments through decode, the store's atomic step, and the features at their places.

Against one pipelined read per entity with the computation in the worker and a checked write: each batch reads the logs
of its accounts and terminals whole, computes the same row, and appends what it found unchanged (optimistic locking).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from streams import records
from streams.guard import Guard, Item
from streams.launch.embedded import EmbeddedStore
from streams.payments.features import Payment, add, row
from streams.payments.history import AccountHistory, History
from streams.payments.ledger import COLUMNS, RECORD
from streams.records import Transaction
from streams.transactions import TransactionsPipeline, stand_in
from tests.benchmarks import news as world
from tests.benchmarks.payments_traffic import Paid, real, skewed
from tests.streams.tills import Tills, stamp

BATCH = 256
AT_ONCE = 20 * BATCH  # whose records are made beforehand
MEASURED = 20_000
WRITE = """
for index, key in ipairs(KEYS) do
  if redis.call('STRLEN', key) ~= tonumber(ARGV[2 * index - 1]) then return 0 end
end
for index, key in ipairs(KEYS) do redis.call('APPEND', key, ARGV[2 * index]) end
return 1
"""


def figures(rounds: int) -> list[dict[str, Any]]:
    """Transactions a second and the ratio, on real traffic and with four heavy terminals."""
    found = []
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        with EmbeddedStore() as server:
            world._pin(server.pid, others=True)
            until = int(time.time() * 1000)
            traffic, source = real(150_000, until)
            for name, payments, about, bar in (
                ("real", traffic, source, 12_000.0),
                ("heavy", skewed(240_000, until), "four terminals with 54,000 payments in 30 days", 10_000.0),
            ):
                ours, theirs = _measure(server.url, payments, rounds)
                rate = world._figure(f"transactions.features.{name}", ours, "1/s")
                found.append(rate | {"against": about, "bar": bar, "ok": rate["value"] >= bar})
                against = "one pipelined read per entity, computation in the worker, checked write"
                found.append(
                    world._ratio(f"transactions.features.{name}_to_reads", ours, theirs, against, 2.0)
                )
    finally:
        os.sched_setaffinity(0, mine)
    return found


def _measure(url: str, payments: Sequence[Paid], rounds: int) -> tuple[list[float], list[float]]:
    """Rates of both ways over the last payments, after the others are there."""
    prefix = f"bench{uuid.uuid4().hex[:6]}"
    tills = Tills(url, prefix, dedupe_hours=1.0)
    share = MEASURED // rounds
    before, parts = (
        payments[:-MEASURED],
        [payments[len(payments) - MEASURED + share * number :][:share] for number in range(rounds)],
    )
    ours, theirs = _Ours(tills), _Theirs(tills)
    ours.take(before)
    theirs.load(before)
    found: tuple[list[float], list[float]] = ([], [])
    for part in parts:
        found[0].append(len(part) / ours.take(part))
        found[1].append(len(part) / theirs.take(part))
    tills.store.client.flushdb()
    return found


class _Ours:
    def __init__(self, tills: Tills) -> None:
        self._tills = tills
        self._pipeline = TransactionsPipeline(tills.settings, tills.store)
        self._guard: Guard[Any] = tills.worker(self._pipeline)
        self._storing = ThreadPoolExecutor(1)
        self._count = 0

    def take(self, payments: Sequence[Paid]) -> float:
        """Seconds for these payments; making their records does not count."""
        spent, now = 0.0, time.time()
        for start in range(0, len(payments), AT_ONCE):
            items = [self._item(one) for one in payments[start : start + AT_ONCE]]
            began = time.perf_counter()
            self._overlapping([items[low : low + BATCH] for low in range(0, len(items), BATCH)], now)
            spent += time.perf_counter() - began
        return spent

    def _overlapping(self, batches: Sequence[list[Item]], now: float) -> None:
        """As the agent does: while a batch is at the store, the one before it is absorbed."""
        waiting: tuple[list[Item], Future[None]] | None = None
        for batch in batches:
            self._guard.prepare(batch, now)
            stored = self._storing.submit(self._guard.commit, batch, now)
            self._absorb(waiting, now)
            waiting = batch, stored
        self._absorb(waiting, now)

    def _absorb(self, waiting: tuple[list[Item], Future[None]] | None, now: float) -> None:
        if waiting is not None:
            batch, stored = waiting
            stored.result()
            self._pipeline.absorb(batch, now)

    def _item(self, one: Paid) -> Item:
        self._count += 1
        return self._tills.payment(f"p{self._count}", one.at, one.account, one.terminal, one.cents)


class _Theirs:
    def __init__(self, tills: Tills) -> None:
        self._client = tills.store.client
        self._prefix = f"{tills.settings.prefix}:read"
        self._write = self._client.register_script(WRITE)

    def load(self, payments: Sequence[Paid]) -> None:
        logs: dict[str, list[bytes]] = {}
        for one in payments:
            for side, name, other in (("a", one.account, one.terminal), ("t", one.terminal, one.account)):
                logs.setdefault(f"{self._prefix}:{side}:{name}", []).append(self._record(one, other, 0))
        for key, found in logs.items():
            self._client.set(key, b"".join(found))

    def take(self, payments: Sequence[Paid]) -> float:
        spent = 0.0
        for start in range(0, len(payments), BATCH):
            raws = [
                self._raw(start + index, one) for index, one in enumerate(payments[start : start + BATCH])
            ]
            began = time.perf_counter()
            batch = [_decoded(raw) for raw in raws]
            while not self._batch(batch):
                pass
            spent += time.perf_counter() - began
        return spent

    def _batch(self, batch: Sequence[Paid]) -> bool:
        keys = list(
            dict.fromkeys(
                key
                for one in batch
                for key in (f"{self._prefix}:a:{one.account}", f"{self._prefix}:t:{one.terminal}")
            )
        )
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        logs: dict[str, bytes] = {key: found or b"" for key, found in zip(keys, pipe.execute(), strict=True)}
        histories: dict[str, Any] = {}
        written: dict[str, list[bytes]] = {}
        for one in batch:
            mine, there = f"{self._prefix}:a:{one.account}", f"{self._prefix}:t:{one.terminal}"
            account = histories.get(mine) or histories.setdefault(mine, _account(logs[mine]))
            terminal = histories.get(there) or histories.setdefault(there, _terminal(logs[there]))
            payment = Payment(one.at, one.cents, stand_in(one.terminal), 0)
            seen = row(account, terminal, payment)
            terminal.add(one.at, one.cents, add(account, payment, seen.unusual, seen.step))
            written.setdefault(mine, []).append(self._record(one, one.terminal, seen.unusual))
            written.setdefault(there, []).append(self._record(one, one.account, seen.unusual))
        arguments: list[Any] = []
        for key in keys:
            arguments += [len(logs[key]), b"".join(written[key])]
        return bool(self._write(keys, arguments))

    def _raw(self, number: int, one: Paid) -> bytes:
        fields = {"account": one.account, "terminal": one.terminal, "amount": one.cents / 100}
        return json.dumps({"id": f"p{number}", "ts": stamp(one.at), **fields}).encode()

    def _record(self, one: Paid, other: str, unusual: int) -> bytes:
        return RECORD.pack(one.at, one.cents, bytes(8), stand_in(other), 0, 0, unusual, 0)


def _decoded(raw: bytes) -> Paid:
    record = records.decode(Transaction, raw, time.time())
    return Paid(records.milliseconds(record.ts), record.account, record.terminal, round(record.amount * 100))


def _account(log: bytes) -> AccountHistory:
    found = AccountHistory()
    columns = np.frombuffer(log, COLUMNS)
    found.load(columns["time"], columns["cents"], columns["kind"])
    found.seen = dict(zip(columns["other"].tolist(), columns["time"].tolist(), strict=True))
    return found


def _terminal(log: bytes) -> History:
    found = History()
    columns = np.frombuffer(log, COLUMNS)
    found.load(columns["time"], columns["cents"], columns["kind"])
    return found
