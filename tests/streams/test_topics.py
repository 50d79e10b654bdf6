"""Topics on the embedded broker and on a real Kafka: making them, and telling their lives apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka.client import AIOKafkaClient
from kafka import KafkaAdminClient

from streams.launch.embedded import free_port
from streams.topics import (
    TopicsError,
    TopicSpec,
    ask_without_creating,
    client_topic_ids,
    create_topics,
    delete_topics,
    topic_ids,
)
from tests.conftest import Broker
from tests.streams.reader import eventually


def asked_by_aiokafka(bootstrap: str, names: Sequence[str]) -> dict[str, str | None]:
    async def ask() -> dict[str, str | None]:
        client = AIOKafkaClient(bootstrap_servers=bootstrap)
        await client.bootstrap()
        try:
            return await client_topic_ids(client, names)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_topics_are_created_once(each_broker: Broker, unique: str) -> None:
    """Only missing topics are created, with the partitions that were asked for."""
    bootstrap = each_broker.bootstrap
    wanted: list[TopicSpec | str] = [f"{unique}.a", TopicSpec(f"{unique}.b", 1)]
    assert create_topics(bootstrap, wanted, 3) == [f"{unique}.a", f"{unique}.b"]
    assert create_topics(bootstrap, [*wanted, f"{unique}.c"], 3) == [f"{unique}.c"]

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    described = admin.describe_topics([f"{unique}.{name}" for name in "abc"])
    admin.close()
    assert {topic["name"][-1]: len(topic["partitions"]) for topic in described} == {"a": 3, "b": 1, "c": 3}


def test_each_life_of_a_topic_has_an_id(each_broker: Broker, unique: str) -> None:
    """A topic keeps its id for life, gets another when it is made again, and both clients agree."""
    bootstrap = each_broker.bootstrap
    create_topics(bootstrap, [unique], 1)
    first = topic_ids(bootstrap, [unique, f"{unique}.none"])
    assert first[unique] is not None
    assert first[f"{unique}.none"] is None
    assert asked_by_aiokafka(bootstrap, [unique, f"{unique}.none"]) == first
    delete_topics(bootstrap, [unique])
    eventually(lambda: topic_ids(bootstrap, [unique])[unique] is None, "the topic is gone")
    create_topics(bootstrap, [unique], 1)
    second = topic_ids(bootstrap, [unique])[unique]
    assert second not in (None, first[unique])
    assert asked_by_aiokafka(bootstrap, [unique])[unique] == second


def test_asking_creates_nothing(each_broker: Broker, unique: str) -> None:
    """A client that wants to know of a topic does not bring it into being."""
    ask_without_creating()

    async def ask() -> None:
        client = AIOKafkaClient(bootstrap_servers=each_broker.bootstrap)
        await client.bootstrap()
        await client.set_topics([unique])
        await client.close()

    asyncio.run(ask())
    assert topic_ids(each_broker.bootstrap, [unique]) == {unique: None}


def test_a_broker_that_is_away_is_named_in_one_line() -> None:
    """Who cannot reach the broker is told its address."""
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(TopicsError, match=nobody) as caught:
        create_topics(nobody, ["t"], 1)
    assert "\n" not in str(caught.value)
