"""The publisher on the embedded broker and on a real Kafka: order, headers, failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.publisher import Publisher, Unsendable
from tests.conftest import Broker
from tests.real_kafka import RealKafka
from tests.streams.reader import WITHIN

Sendable = tuple[str, bytes | None, bytes, tuple[tuple[str, bytes], ...]]


async def publish(bootstrap: str, *batches: list[Sendable]) -> None:
    publisher = Publisher(bootstrap)
    await publisher.start()
    try:
        for batch in batches:
            await publisher.publish(batch)
    finally:
        await publisher.stop()


async def read(bootstrap: str, topic: str, count: int) -> list[Any]:
    """The first `count` records of a topic of one partition."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        records: list[Any] = []
        async with asyncio.timeout(WITHIN):
            while len(records) < count:
                records.append(await consumer.getone())
        return records


def test_what_was_published_arrives_in_order(each_broker: Broker, new_topic: Callable[..., str]) -> None:
    """Key, value and headers arrive, in the order of the batch."""
    topic = new_topic(each_broker.bootstrap, 1)
    batch: list[Sendable] = [(topic, b"k%d" % n, b"v%d" % n, (("h", b"%d" % n),)) for n in range(500)]

    async def there_and_back() -> list[Any]:
        await publish(each_broker.bootstrap, batch[:300], batch[300:])
        return await read(each_broker.bootstrap, topic, 500)

    records = asyncio.run(there_and_back())
    assert [(topic, record.key, record.value, tuple(record.headers)) for record in records] == batch


def test_a_record_that_is_too_large_is_named_and_the_others_arrive(
    each_broker: Broker, new_topic: Callable[..., str]
) -> None:
    """Unsendable tells which records can never be sent; their neighbours have arrived by then."""
    topic = new_topic(each_broker.bootstrap, 1)
    batch: list[Sendable] = [(topic, None, b"x" * size, ()) for size in (5, 2_000_000, 7)]

    async def there_and_back() -> list[Any]:
        with pytest.raises(Unsendable) as caught:
            await publish(each_broker.bootstrap, batch)
        assert caught.value.records == [1]
        return await read(each_broker.bootstrap, topic, 2)

    assert [len(record.value) for record in asyncio.run(there_and_back())] == [5, 7]


@pytest.mark.kafka
def test_the_brokers_own_limit(kafka: str, new_topic: Callable[..., str]) -> None:
    """A record that only the broker finds too large is unsendable too."""
    topic = new_topic(kafka, 1, max_message_bytes="1000")
    with pytest.raises(Unsendable):
        asyncio.run(publish(kafka, [(topic, b"k", b"x" * 5000, ())]))


@pytest.mark.kafka
def test_a_broker_that_crashes_loses_nothing(
    kafka_to_crash: RealKafka, new_topic: Callable[..., str]
) -> None:
    """What is published while the broker is dead arrives once it is back, in order, each record once."""
    kafka = kafka_to_crash.bootstrap
    topic = new_topic(kafka, 1)
    batches: list[list[Sendable]] = [
        [(topic, b"k", b"%d" % (10 * n + m), ()) for m in range(10)] for n in range(20)
    ]

    async def across_a_crash() -> list[Any]:
        publisher = Publisher(kafka)
        await publisher.start()
        for batch in batches[:5]:
            await publisher.publish(batch)
        await asyncio.to_thread(kafka_to_crash.kill)
        publishing = asyncio.gather(*(publisher.publish(batch) for batch in batches[5:]))
        await asyncio.to_thread(kafka_to_crash.resume)
        async with asyncio.timeout(WITHIN):
            await publishing
        await publisher.stop()
        return await read(kafka, topic, 200)

    values = [int(record.value) for record in asyncio.run(across_a_crash())]
    assert values == list(range(200))


def test_a_closed_producer_is_replaced(each_broker: Broker, new_topic: Callable[..., str]) -> None:
    """When the producer underneath has failed for good, another takes its place."""
    topic = new_topic(each_broker.bootstrap, 1)

    async def across_a_failure() -> list[Any]:
        publisher = Publisher(each_broker.bootstrap)
        await publisher.start()
        await publisher.publish([(topic, None, b"1", ())])
        assert publisher._producer is not None
        await publisher._producer.stop()
        await publisher.publish([(topic, None, b"2", ())])
        await publisher.stop()
        return await read(each_broker.bootstrap, topic, 2)

    assert [record.value for record in asyncio.run(across_a_failure())] == [b"1", b"2"]
