"""Exactness: features online against offline, sliding windows against brute force; and what windows cost in memory."""

from __future__ import annotations

import time
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.launch.embedded import EmbeddedStore
from streams.payments.features import FEATURES, WINDOWS
from streams.payments.history import DAY, HOUR, LONGEST
from streams.payments.ledger import RECORD
from streams.payments.replay import NEVER, Table, replay
from streams.transactions import stand_in
from tests.benchmarks.payments_traffic import disturbed, real
from tests.streams.tills import Tills, offline, row_of, sequence_of

ONLINE = 200_000  # transactions that go through the pipeline
EVENTS = 1_000_000  # that are counted by brute force
BATCH = 250
WIDTHS = dict(zip(WINDOWS, (HOUR, DAY, 7 * DAY, 30 * DAY), strict=True))


def figures() -> list[dict[str, Any]]:
    """Differences, errors, bytes."""
    with EmbeddedStore() as server:
        return [_online(server.url), _windows(), *_memory(server.url)]


def _online(url: str) -> dict[str, Any]:
    now = time.time()
    payments, source = real(ONLINE, int(now * 1000) - 2 * DAY)
    arrivals = disturbed(payments)
    expected = offline([{**one._asdict(), "id": name, "country": ""} for name, one in arrivals])
    tills = Tills(url, f"bench{uuid.uuid4().hex[:6]}", dedupe_hours=24.0)
    worker, wrong, duplicates = tills.worker(), 0, 0
    for start in range(0, len(arrivals), BATCH):
        items = [
            tills.payment(name, one.at, one.account, one.terminal, one.cents)
            for name, one in arrivals[start : start + BATCH]
        ]
        tills.through(worker, items, now)
        for item in items:
            if item.status == "duplicate":
                duplicates += 1
                continue
            row, sequence = expected[item.record.id]
            wrong += int((row_of(item) != row).any() or sequence_of(item) != sequence)
    against = (
        f"offline replay; {source}, {len(arrivals) - duplicates:,} and {duplicates:,} duplicates, 5 % late"
    )
    return _row("transactions.offline_online_differences", wrong, "rows", ONLINE, against, 0)


def _windows() -> dict[str, Any]:
    payments, source = real(EVENTS, int(time.time() * 1000))
    first: dict[str, Any] = {}
    for name, one in disturbed(payments):
        first.setdefault(name, one)
    arrived = list(first.values())
    columns = {
        "time": [one.at for one in arrived],
        "cents": [one.cents for one in arrived],
        "account": [stand_in(one.account) for one in arrived],
        "terminal": [stand_in(one.terminal) for one in arrived],
        "country": [0] * len(arrived),
        "known": [NEVER] * len(arrived),
    }
    table = Table(**{name: np.array(values, np.int64) for name, values in columns.items()})
    features = replay(table).features
    errors = 0
    for side, codes in (("account", table.account), ("terminal", table.terminal)):
        order = np.argsort(codes, kind="stable")
        edges = np.flatnonzero(np.diff(codes[order])) + 1
        for rows in np.split(order, edges):
            expected = _brute(table.time[rows], table.cents[rows])
            names = [
                f"{side}_{what}_{window}" for window in WINDOWS for what in ("count", "sum", "mean", "max")
            ]
            places = np.array([FEATURES.index(name) for name in (*names, f"{side}_since_last")])
            found = features[np.ix_(rows, places)]
            errors += int((found != expected.astype(np.float32)).sum())
    against = f"all earlier arrivals looked at, each window; {source}, 5 % late, {34 * len(arrived):,} values"
    return _row("transactions.window_errors", errors, "values", len(arrived), against, 0)


def _brute(times: NDArray[Any], cents: NDArray[Any]) -> NDArray[np.float64]:
    """Count, sum, mean and largest in each window, and the time since the last: [n, 17] in order of arrival."""
    count = len(times)
    age = times[:, None] - times[None, :]
    before = (np.arange(count)[None, :] < np.arange(count)[:, None]) & (age >= 0)
    found = []
    for width in WIDTHS.values():
        inside = before & (age < width)
        counts, sums = inside.sum(1), (inside * cents).sum(1) / 100.0
        found += [counts, sums, np.divide(sums, counts, out=np.zeros(count), where=counts > 0)]
        found.append(np.where(inside, cents, 0).max(1) / 100.0)
    found.append(np.where(before & (age < LONGEST), age, LONGEST).min(1) / 1000.0)
    return np.stack(found, axis=1)


def _memory(url: str) -> list[dict[str, Any]]:
    """Logs as they lie in the store, cut to what each window needs."""
    store = Tills(url, f"bench{uuid.uuid4().hex[:6]}").store
    payments, source = real(400_000, int(time.time() * 1000))
    until = payments[-1].at
    sizes = {}
    for name, width in (("1h", HOUR), ("30d", 30 * DAY)):
        logs: dict[str, list[bytes]] = {one.account: [] for one in payments[-20_000:]}
        for one in payments:
            if one.at > until - width and one.account in logs:
                logs[one.account].append(RECORD.pack(one.at, one.cents, bytes(8), 0, 0, 0, 0, 0))
        pipe = store.client.pipeline(transaction=False)
        for account, records in logs.items():
            key = store.keys.account(f"{name}-{account}")
            pipe.set(key, bytes(8) + b"".join(records))
            pipe.memory_usage(key)
        sizes[name] = sum(pipe.execute()[1::2]) / len(logs)
    against = (
        f"account logs of {source}; exact windows of any length share one log, which grows with the longest"
    )
    return [
        _row("transactions.window_bytes_per_account", round(sizes["30d"]), "bytes", 1, against, None),
        _row(
            "transactions.window_memory_30d_to_1h",
            round(sizes["30d"] / sizes["1h"], 2),
            "ratio",
            1,
            against,
            None,
        ),
    ]


def _row(name: str, value: float, unit: str, count: int, against: str, bar: float | None) -> dict[str, Any]:
    ok = None if bar is None else value <= bar
    return {
        "figure": name, "value": value, "unit": unit, "n": count, "spread": [value, value],
        "against": against, "bar": bar, "ok": ok,
    }  # fmt: skip
