"""Real workers are killed while they work; every record is accounted for afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import topics
from streams.launch.commands import create_topics
from streams.launch.embedded import EmbeddedBroker, EmbeddedStore
from streams.settings import Settings
from streams.state.store import Store
from tests.conftest import Broker
from tests.real_kafka import RealKafka
from tests.streams.crash import (
    Sent,
    account,
    done,
    kill_at_random,
    produce,
    read_all,
    summary,
    verify,
    wait_for,
    workers,
)
from tests.streams.loads import LOADS, Load

SEED = 20261122


@pytest.fixture(params=LOADS, ids=lambda load: load.pipeline)
def load(request: pytest.FixtureRequest) -> Load:
    """Each pipeline in turn, with what is sent through it."""
    found: Load = request.param
    return found


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store that the test may stop."""
    with EmbeddedStore(dir=tmp_path, appendonly=True) as server:
        yield server


def settings_for(bootstrap: str, url: str, prefix: str) -> Settings:
    """Settings of a world of its own."""
    return Settings(kafka=bootstrap, redis=url, prefix=prefix, engine="tiny")


def test_killed_workers_lose_nothing_and_count_nothing_twice(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """Three kills during 8,000 records with 1 % poison, a second worker joining and leaving: exact counts."""
    crash_run(each_broker, own_store, unique, load, count=8_000, kills=3, spare=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("spare", [False, True], ids=["alone", "with workers joining and leaving"])
def test_soak(each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load, spare: bool) -> None:
    """Twenty kills during 20,000 records, alone and with two workers joining and leaving."""
    crash_run(each_broker, own_store, unique, load, count=20_000, kills=20, spare=spare)


def crash_run(
    broker: Broker, server: EmbeddedStore, prefix: str, load: Load, *, count: int, kills: int, spare: bool
) -> None:
    """Produce, kill, count; the summary goes to standard error."""
    settings = settings_for(broker.bootstrap, server.url, prefix)
    create_topics(settings)
    store = Store(server.url, prefix)
    sent = asyncio.run(produce(settings, count, 0.01, SEED, load=load))
    with workers(settings, broker.fetch_wait_ms is not None, load) as made:
        kill_at_random(made, store, sent.total, kills, SEED, spare=spare, load=load)
        found = account(settings, store, sent, load=load)
    print(summary(sent, found, kills), file=sys.stderr)
    verify(sent, found)
    read = asyncio.run(read_all(settings.kafka, settings.topic(load.source)))
    load.verify(settings, store, [value for value, _ in read])


def test_a_store_that_hangs_is_waited_for(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """A store that stops answering for longer than a request waits costs nothing; the worker goes on by itself."""
    hang(each_broker, own_store, unique, load, seconds=7)


@pytest.mark.soak
def test_a_store_that_hangs_for_twenty_seconds(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """The same for twenty seconds."""
    hang(each_broker, own_store, unique, load, seconds=20)


def hang(broker: Broker, server: EmbeddedStore, prefix: str, load: Load, seconds: float) -> None:
    """Stop the store's process in the middle, and let it go on later; the worker must be the same all along."""
    settings = settings_for(broker.bootstrap, server.url, prefix)
    create_topics(settings)
    store = Store(server.url, prefix)
    sent = asyncio.run(produce(settings, 3_000, 0.01, SEED, load=load))
    with workers(settings, broker.fetch_wait_ms is not None, load) as made:
        worker = made.start()
        wait_for("a third of the records done", lambda: done(store, load) >= 1_000, 60)
        assert server.pid
        os.kill(server.pid, signal.SIGSTOP)
        until = time.monotonic() + seconds
        later = asyncio.run(produce(settings, 500, 0.01, SEED + 1, prefix="later", load=load))
        time.sleep(max(0.0, until - time.monotonic()))
        os.kill(server.pid, signal.SIGCONT)
        total = sent.total + later.total
        wait_for("all records done", lambda: done(store, load) >= total, 120)
        sent.ids |= later.ids
        sent.poison |= later.poison
        verify(sent, account(settings, store, sent, load=load))
        assert worker.poll() is None


def test_a_store_that_dies_is_waited_for(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """A store killed in the middle may lose its last second; the worker starts afresh from where it stands."""
    settings = settings_for(each_broker.bootstrap, own_store.url, unique)
    create_topics(settings)
    store = Store(own_store.url, unique)
    sent = asyncio.run(produce(settings, 3_000, 0.01, SEED, load=load))
    with workers(settings, each_broker.fetch_wait_ms is not None, load) as made:
        made.start()
        wait_for("a third of the records done", lambda: done(store, load) >= 1_000, 60)
        own_store.kill()
        own_store.start()
        wait_for("all records done", lambda: done(store, load) >= sent.total, 120, made.revive)
        verify(sent, account(settings, store, sent, load=load))


@pytest.mark.kafka
def test_a_killed_broker_is_waited_for(
    kafka_to_crash: RealKafka, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """The real broker, killed and resumed in the middle, costs nothing but time."""
    settings = settings_for(kafka_to_crash.bootstrap, own_store.url, unique)
    create_topics(settings)
    store = Store(own_store.url, unique)
    sent = asyncio.run(produce(settings, 3_000, 0.01, SEED, load=load))
    with workers(settings, False, load) as made:
        worker = made.start()
        wait_for("a third of the records done", lambda: done(store, load) >= 1_000, 60)
        kafka_to_crash.kill()
        kafka_to_crash.resume()
        later = asyncio.run(produce(settings, 500, 0.01, SEED + 1, prefix="later", load=load))
        total = sent.total + later.total
        wait_for("all records done", lambda: done(store, load) >= total, 120)
        sent.ids |= later.ids
        sent.poison |= later.poison
        verify(sent, account(settings, store, sent, load=load))
        assert worker.poll() is None


def test_a_topic_made_again_is_read_from_its_start(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """Records of a topic that was deleted and made again under a running worker are all counted."""
    settings = settings_for(each_broker.bootstrap, own_store.url, unique)
    create_topics(settings)
    store = Store(own_store.url, unique)
    first = asyncio.run(produce(settings, 600, 0.0, SEED, load=load))
    with workers(settings, each_broker.fetch_wait_ms is not None, load) as made:
        made.start()
        wait_for("the first life done", lambda: done(store, load) >= first.total, 60)
        topics.delete_topics(settings.kafka, [settings.topic(load.source)])
        wait_for("the topic is gone", lambda: _life(settings, load) is None, 30)
        create_topics(settings)
        second = asyncio.run(produce(settings, 900, 0.0, SEED, prefix="again", load=load))
        total = first.total + second.total
        wait_for("the second life done", lambda: done(store, load) >= total, 90, made.revive)
        both = Sent(first.ids | second.ids)
        found = account(settings, store, both, load=load)
    assert found.scored == both.ids
    assert found.outcomes == {"scored": total}
    assert found.counted == total


def test_an_embedded_broker_that_dies_starts_a_new_life(
    own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """After the broker lost everything, new records are counted though ids, offsets and the store are the same."""
    with EmbeddedBroker() as broker:
        settings = settings_for(broker.bootstrap, own_store.url, unique)
        create_topics(settings)
        store = Store(own_store.url, unique)
        first = asyncio.run(produce(settings, 400, 0.0, SEED, load=load))
        with workers(settings, load=load) as made:
            made.start()
            wait_for("the first life done", lambda: done(store, load) >= first.total, 60)
            broker.kill()
            broker.start()
            create_topics(settings)
            second = asyncio.run(produce(settings, 500, 0.0, SEED, load=load))
            total = first.total + second.total
            wait_for("the second life done", lambda: done(store, load) >= total, 90, made.revive)
            found = account(settings, store, second, load=load)
    assert found.scored == second.ids
    assert found.outcomes == {"scored": total}


def test_ids_sent_twice_are_counted_once(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """A thousand ids that the producer sends twice are a thousand scored and a thousand duplicates."""
    settings = settings_for(each_broker.bootstrap, own_store.url, unique)
    create_topics(settings)
    store = Store(own_store.url, unique)
    sent = asyncio.run(produce(settings, 1_000, 0.0, SEED, load=load))
    asyncio.run(produce(settings, 1_000, 0.0, SEED, load=load))
    with workers(settings, each_broker.fetch_wait_ms is not None, load) as made:
        made.start()
        wait_for("all done", lambda: done(store, load) >= 2_000, 60)
        found = account(settings, store, sent, load=load)
    assert found.outcomes == {"scored": 1_000, "duplicate": 1_000}
    assert found.counted == 1_000
    assert found.scored == sent.ids


def test_a_worker_ends_cleanly(
    each_broker: Broker, own_store: EmbeddedStore, unique: str, load: Load
) -> None:
    """SIGTERM ends an idle worker with status 0."""
    settings = settings_for(each_broker.bootstrap, own_store.url, unique)
    create_topics(settings)
    store = Store(own_store.url, unique)
    asyncio.run(produce(settings, 50, 0.0, SEED, load=load))
    with workers(settings, each_broker.fetch_wait_ms is not None, load) as made:
        worker = made.start()
        wait_for("all done", lambda: done(store, load) >= 50, 60)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(15) == 0


def _life(settings: Settings, load: Load) -> str | None:
    name = settings.topic(load.source)
    return topics.topic_ids(settings.kafka, [name])[name]
