"""`tapewatch bench transactions`: decisions a second, their latency, the feature step, exactness.

The path: one worker on one core (broker and store on the others) takes payments from Kafka, computes features, scores
with trees and sequence model, applies rules, explains reviews and blocks, and publishes; a round's rate is taken from
the append times of the scored records. Latency: open loop at half the bar's load, append time to append time.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.settings import Settings
from streams.state.store import Store
from tests import real_kafka
from tests.benchmarks import news as world
from tests.benchmarks import transactions_exact, transactions_features
from tests.benchmarks.payments_traffic import Paid, simulated
from tests.streams.crash import read_all, wait_for
from tests.streams.tills import stamp

PARTS = ("path", "features", "exact")
ROUND = 30_000  # payments of a round
BAR = 5_000.0  # decisions a second
SECONDS = 20  # of the latency trial
TICK = 0.002  # seconds between two sends of the latency trial
HISTORY = 60_000  # payments that are known before
REVIEWED = 0.01  # of all payments, by the budget of reviews


def run(rounds: int = 3, parts: Sequence[str] = PARTS) -> list[dict[str, Any]]:
    """The figures, as the contract's `bench` prints them."""
    found: list[dict[str, Any]] = []
    if "path" in parts:
        with world._world("kafka" if not real_kafka.missing() else "embedded") as settings:
            found += _path(settings, rounds)
    if "features" in parts:
        found += transactions_features.figures(rounds)
    if "exact" in parts:
        found += transactions_exact.figures()
    return found


def _path(settings: Settings, rounds: int) -> list[dict[str, Any]]:
    store = Store(settings.redis, settings.prefix)
    latency_count = int(SECONDS * BAR / 2)
    count = HISTORY + ROUND * rounds + latency_count
    payments, source = simulated(count, int(time.time() * 1000) - 60_000), "simulator"
    days = (payments[-1].at - payments[0].at) / 86_400_000
    settings = replace(settings, reviews_a_day=round(REVIEWED * count / days, 1))
    history, measured = payments[:HISTORY], payments[HISTORY:]
    rates, costs = [], []
    worker = [sys.executable, "-m", "streams.launch.worker", "transactions"]
    with world._child(worker, settings) as process:
        asyncio.run(_send(settings, history, "h", 0.0))
        _wait(store, HISTORY, process)
        done = HISTORY
        for number in range(rounds):
            spent = _cpu(process.pid)
            asyncio.run(_send(settings, measured[number * ROUND : (number + 1) * ROUND], f"r{number}", 0.0))
            done += ROUND
            _wait(store, done, process)
            costs.append((_cpu(process.pid) - spent) / ROUND * 1e6)
            rates.append(asyncio.run(_rate(settings, f"r{number}-", ROUND)))
            print(
                f"round {number + 1}: {rates[-1]:,.0f} decisions/s, {costs[-1]:.0f} us of CPU each",
                file=sys.stderr,
            )
        asyncio.run(_send(settings, measured[ROUND * rounds :], "open", BAR / 2))
        _wait(store, done + latency_count, process)
        time.sleep(1.0)  # the last publication
        came = asyncio.run(_appended(settings, "transactions", "open-"))
        went = asyncio.run(_appended(settings, "transactions.scored", "open-"))
    taken = sorted(went[name] - came[name] for name in came)
    scored = [
        json.loads(value)
        for value, _ in asyncio.run(read_all(settings.kafka, settings.topic("transactions.scored")))
    ]
    scored = [one for one in scored if not one["id"].startswith("h-")]
    flagged = sum(one["decision"] != "approve" for one in scored) / len(scored)
    against = f"one worker on one core, {source}, model {scored[0]['model']} on {scored[0]['engine']}"
    rate = world._figure("transactions.decisions_per_second", rates, "1/s")
    cost = world._figure("transactions.cpu_per_decision", costs, "us")
    share = world._figure("transactions.reviews_and_blocks", [100 * flagged], "of 100")
    middle, tail = statistics.median(taken), taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    return [
        rate | {"against": against, "bar": BAR, "ok": rate["value"] >= BAR},
        cost | {"against": f"CPU time of the worker, all of its threads; {against}", "bar": None, "ok": None},
        share | {"against": against, "bar": 2.0, "ok": share["value"] <= 2.0},
        _bar("transactions.latency_p50", float(middle), taken, 8.0),
        _bar("transactions.latency_p99", float(tail), taken, 25.0),
    ]


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used: true under any load, where rates are not."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait(store: Store, count: int, process: Any) -> None:
    def there() -> bool:
        assert process.poll() is None, f"the worker ended with status {process.returncode}"
        return sum(store.outcomes("transactions").values()) >= count

    wait_for(f"{count} payments decided", there, 300)


async def _send(settings: Settings, payments: Sequence[Paid], prefix: str, rate: float) -> None:
    """Publish payments at once, or so many a second whatever becomes of them."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=0 if rate else 5, acks="all")
    await producer.start()
    topic, waiting, sent = settings.topic("transactions"), [], 0
    began = time.monotonic()
    while sent < len(payments):
        due = len(payments) if not rate else min(len(payments), int((time.monotonic() - began) * rate))
        for index in range(sent, due):
            one = payments[index]
            record = {
                "id": f"{prefix}-{index}", "ts": stamp(one.at), "account": one.account,
                "terminal": one.terminal, "amount": one.cents / 100,
            }  # fmt: skip
            waiting.append(await producer.send(topic, json.dumps(record).encode(), key=one.account.encode()))
        sent = due
        if rate:
            await asyncio.sleep(TICK)
    await asyncio.gather(*waiting)
    await producer.stop()


async def _appended(settings: Settings, name: str, prefix: str) -> dict[str, int]:
    return await world._appended(settings, name, prefix)


async def _rate(settings: Settings, prefix: str, count: int) -> float:
    """Records a second between the first batch's append and the last's."""
    deadline = time.monotonic() + 30
    while len(found := await _appended(settings, "transactions.scored", prefix)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count - len(found)} scored records are missing")
        await asyncio.sleep(0.1)
    stamps = sorted(found.values())
    first = stamps[0] + 20  # 20 ms: one batch's records are appended within it
    return sum(at > first for at in stamps) / (stamps[-1] - stamps[0]) * 1000


def _bar(name: str, value: float, taken: Sequence[float], bar: float) -> dict[str, Any]:
    return {
        "figure": name, "value": value, "unit": "ms", "n": len(taken), "spread": [taken[0], taken[-1]],
        "against": f"open loop, {BAR / 2:,.0f} payments/s, append time to append time", "bar": bar,
        "ok": value <= bar,
    }  # fmt: skip
