"""Servers for integration tests: the embedded broker and store, and a real Kafka where one can be had.

Each runs once a session, on free ports; tests keep apart by topic names and key prefixes of their own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from streams.launch.embedded import EmbeddedBroker, EmbeddedStore
from streams.topics import TopicSpec, create_topics
from tests import real_kafka

settings.register_profile("untimed", deadline=None)  # no test asserts a wall-clock time
settings.load_profile("untimed")


class Broker(NamedTuple):
    """A broker under test."""

    bootstrap: str
    fetch_wait_ms: int | None
    join_seconds: float  # at most, for a group to settle


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap server of an embedded broker."""
    with EmbeddedBroker() as server:
        yield server.bootstrap


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """URL of an embedded store; use a prefix of your own (the fixture `unique`)."""
    with EmbeddedStore() as server:
        yield server.url


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_kafka.RealKafka]:
    """A real Kafka; a test that crashes it must resume it."""
    if reason := real_kafka.missing():
        pytest.skip(reason)
    with real_kafka.RealKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(kafka_server: real_kafka.RealKafka) -> str:
    """Bootstrap server of a real Kafka."""
    return kafka_server.bootstrap


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def each_broker(request: pytest.FixtureRequest) -> Broker:
    """The test runs on the embedded broker, and on a real Kafka."""
    if request.param == "embedded":
        return Broker(request.getfixturevalue("broker"), 10, 20.0)
    return Broker(request.getfixturevalue("kafka"), None, 20.0)


@pytest.fixture
def unique() -> str:
    """A word that no other test has: for topics, groups and prefixes."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def new_topic(unique: str) -> Callable[..., str]:
    """Make a topic that no other test has: `new_topic(bootstrap, partitions)` returns its name."""

    def make(bootstrap: str, partitions: int = 4, **config: str) -> str:
        name = f"{unique}.{uuid.uuid4().hex[:6]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        create_topics(bootstrap, [TopicSpec(name, partitions, settings)], partitions)
        return name

    return make


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder for the output of child processes."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder
