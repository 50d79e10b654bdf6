"""Servers for integration tests: the embedded broker and store, and a real Kafka where one can be had.

Each runs once a process (the real Kafka once for all), on free ports; tests keep apart by topic names and key prefixes
of their own. `make test` spreads the tests over several processes, because most of them wait for servers.
"""

from __future__ import annotations

import os
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


# Files whose tests take long and share nothing: each is given out alone, these files first.
SPREAD = ("tests/streams/test_crash.py", "tests/test_whole.py", "tests/streams/test_transport.py")
FIRST = (*SPREAD, "tests/test_browser.py", "tests/dashboard/test_pages.py", "tests/models/test_train.py")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What one process must run in a row: a file, and the tests that crash a broker."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        fixtures = getattr(item, "fixturenames", ())
        if "kafka_to_crash" in fixtures:
            item.add_marker(pytest.mark.xdist_group("crashes of the broker"))
        elif file not in SPREAD or "up" in fixtures:
            item.add_marker(pytest.mark.xdist_group(file))
    places = {file: place for place, file in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(FIRST)))


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
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap server of a real Kafka that all processes of this run share: it is not to be crashed."""
    if reason := real_kafka.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with real_kafka.SharedKafka(folder) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def kafka_to_crash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_kafka.RealKafka]:
    """A real Kafka of this process alone; a test that crashes it must resume it."""
    if reason := real_kafka.missing():
        pytest.skip(reason)
    with real_kafka.RealKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


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
