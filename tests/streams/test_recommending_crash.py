"""Recommendation workers killed while they work: every interaction is answered, nothing owned is ever shown."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streams.launch.commands import create_topics
from streams.launch.embedded import EmbeddedStore
from streams.settings import Settings
from streams.state.recommended import recommended
from streams.state.store import Store, as_text
from tests.conftest import Broker
from tests.streams.crash import Workers, read_all, wait_for

CUSTOMERS, ITEMS, COUNT, POISON = 40, 60, 1_500, b'{"id": "x", "kind": "steal"}'
SEED = 20261130


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(dir=tmp_path, appendonly=True) as server:
        yield server


def interactions() -> list[dict[str, str]]:
    """What the customers do in ten minutes of yesterday's noon, drawn with a fixed seed."""
    chance, noon = random.Random(SEED), (int(time.time()) // 86_400 - 1) * 86_400 + 43_200
    made = []
    for index in range(COUNT):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(noon + chance.randrange(600)))
        kind = chance.choice(("view", "click", "buy", "dismiss"))
        customer, item = f"c{chance.randrange(CUSTOMERS)}", f"i{chance.randrange(ITEMS)}"
        made.append({"id": f"a{index}", "ts": at, "customer": customer, "item": item, "kind": kind})
    return made


async def produce(settings: Settings, rows: list[dict[str, str]]) -> int:
    """Interactions with a poison record after each hundredth; returns how many records that makes."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=5, acks="all")
    await producer.start()
    topic, sent = settings.topic("interactions"), 0
    for index, row in enumerate(rows):
        await producer.send(topic, json.dumps(row).encode(), key=row["customer"].encode())
        sent += 1
        if index % 100 == 99:
            await producer.send(topic, POISON, key=b"x")
            sent += 1
    await producer.stop()
    return sent


def test_killed_workers_answer_every_interaction_and_show_nothing_owned(
    each_broker: Broker, own_store: EmbeddedStore, unique: str
) -> None:
    """Two kills: exact outcomes, exact demand, a published list for each interaction, and none with what was owned."""
    settings = Settings(
        kafka=each_broker.bootstrap,
        redis=own_store.url,
        prefix=unique,
        engine="tiny",
        bundles=Path("nowhere"),
    )
    create_topics(settings)
    store, rows = Store(own_store.url, unique), interactions()

    def done() -> int:
        return sum(store.outcomes("recommendations").values())

    made = Workers(settings, "recommendations", embedded=each_broker.fetch_wait_ms is not None)
    try:
        total = asyncio.run(produce(settings, rows))
        worker = made.start()
        for share in (0.2, 0.6):
            wait_for("records done", lambda share=share: done() >= share * total, 180, made.revive)  # type: ignore[misc]
            made.kill(made.processes[0] if worker not in made.processes else worker)
            worker = made.start()
        wait_for("all records done", lambda: done() >= total, 180, made.revive)
        published: list[tuple[bytes, dict[str, bytes]]] = []

        def all_published() -> bool:
            published[:] = asyncio.run(read_all(settings.kafka, settings.topic("recommendations")))
            return len({json.loads(value)["id"] for value, _ in published}) >= len(rows)

        wait_for("a list for each interaction", all_published, 60, made.revive)
    finally:
        made.stop()
    assert store.outcomes("recommendations") == {"scored": len(rows), "dead_letter": len(rows) // 100}
    asked = Counter(row["item"] for row in rows if row["kind"] != "dismiss")
    assert {
        as_text(item): int(count) for item, count in store.client.hgetall(store.keys.ever()).items()
    } == asked
    assert {json.loads(value)["id"] for value, _ in published} == {row["id"] for row in rows}
    gone: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] in ("buy", "dismiss"):
            gone.setdefault(row["customer"], set()).add(row["item"])
    for customer, items in gone.items():
        shown = {place["item"] for place in recommended(store, customer, 50)}
        assert shown
        assert not shown & items
    store.close()
