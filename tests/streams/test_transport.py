"""Where stock Faust loses records and our transport does not: on the embedded broker, and on a real Kafka alike."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from streams.topics import create_topics, delete_topics
from tests.conftest import Broker
from tests.real_kafka import RealKafka
from tests.streams.reader import Child, Config, committed, eventually, processed, produce, read_notes

RECORDS = 200
HELD = list(range(10))  # the first run


@pytest.fixture
def children() -> Iterator[Callable[[Child], Child]]:
    """Children that the test does not end are killed."""
    with ExitStack() as stack:

        def keep(child: Child) -> Child:
            stack.callback(child.kill)
            return child

        yield keep


@pytest.fixture
def start(
    each_broker: Broker,
    new_topic: Callable[..., str],
    unique: str,
    logs: Path,
    children: Callable[[Child], Child],
) -> Callable[..., Child]:
    """Start a worker on a new topic that holds `records` records in `partitions` partitions."""

    def make(records: int = RECORDS, partitions: int = 1, **options: Any) -> Child:
        topic = new_topic(each_broker.bootstrap, partitions)
        produce(each_broker.bootstrap, topic, [b"%d" % n for n in range(records)], partitions)
        fixed = {
            "bootstrap": each_broker.bootstrap,
            "fetch_wait_ms": each_broker.fetch_wait_ms,
            "group": unique,
        }
        return children(Child(Config(topic=topic, notes=str(logs / "notes"), **{**fixed, **options})))

    return make


def everything(records: int, partitions: int = 1) -> set[tuple[int, int]]:
    return {(n % partitions, n // partitions) for n in range(records)}


def until_processed(child: Child, records: set[tuple[int, int]]) -> None:
    eventually(lambda: processed(child.notes) >= records, f"{len(records)} records processed", child)


def assignments(notes: Path) -> list[int]:
    """How many partitions each assignment gave."""
    return [len(note[1]) for note in read_notes(notes) if note[0] == "assigned"]


def asked(notes: Path) -> list[dict[str, int | None]]:
    """What `start_offsets` was asked about."""
    return [note[1] for note in read_notes(notes) if note[0] == "asked"]


def commit_of(child: Child, partition: int = 0) -> int | None:
    return committed(child.config.bootstrap, child.config.group, child.config.topic, partition)


def test_acknowledged_out_of_order(start: Callable[..., Child], children: Callable[[Child], Child]) -> None:
    """What was not acknowledged comes again after a crash, though all that follows it was acknowledged."""
    child = start(held=HELD)
    until_processed(child, everything(RECORDS))
    eventually(lambda: commit_of(child) == 0, "a commit", child)
    child.kill()
    child.notes.unlink()
    until_processed(children(child.again(2, held=[])), everything(RECORDS))


def test_stock_faust_loses_what_is_acknowledged_out_of_order(
    start: Callable[..., Child], children: Callable[[Child], Child]
) -> None:
    """Stock Faust commits past records that nobody has acknowledged: after a crash they never come."""
    child = start(held=HELD, stock=True)
    until_processed(child, everything(RECORDS))
    eventually(lambda: commit_of(child) == RECORDS, "a commit beyond the held records", child)


def test_the_flow_stops_in_the_middle_of_a_fetch(start: Callable[..., Child]) -> None:
    """Records that were fetched and not delivered when the flow stopped are read again."""
    child = start(records=4000, max_batch=500, delay=0.01, flow_stops=5)
    until_processed(child, everything(4000))
    assert child.end() == 0
    assert commit_of(child) == 4000


def test_stock_faust_loses_records_when_the_flow_stops(start: Callable[..., Child]) -> None:
    """Stock Faust drops what it had fetched when the flow stopped, and commits past it."""
    child = start(records=4000, max_batch=500, flow_stops=5, stock=True)
    eventually(lambda: commit_of(child) == 4000, "a commit of the whole topic", child)
    assert len(processed(child.notes)) < 4000


def test_a_worker_joins_in_the_middle_of_a_batch_and_the_other_is_killed(
    start: Callable[..., Child], children: Callable[[Child], Child]
) -> None:
    """Nothing is missing when partitions move during a batch and an owner dies with batches in its hands."""
    records, partitions = 4000, 4
    first = start(records, partitions, delay=0.05, max_batch=50)
    eventually(lambda: len(processed(first.notes)) > 200, "the first is at work", first)
    second = children(first.again(2))
    eventually(lambda: 2 in assignments(first.notes), "the second has joined", second)
    first.kill()
    until_processed(second, everything(records, partitions))
    assert second.end() == 0
    assert [commit_of(second, partition) for partition in range(partitions)] == [
        records // partitions
    ] * partitions


def test_a_worker_leaves_and_its_partitions_go_on(
    start: Callable[..., Child], children: Callable[[Child], Child]
) -> None:
    """A worker that is told to end finishes what it has, and the other takes over without repeating it."""
    records, partitions = 2000, 2
    first = start(records, partitions, delay=0.05, max_batch=20)
    eventually(lambda: len(processed(first.notes)) > 100, "the first is at work", first)
    second = children(first.again(2))
    eventually(lambda: 1 in assignments(first.notes), "the second has joined", second)
    assert first.end() == 0
    until_processed(second, everything(records, partitions))
    assert second.end() == 0
    noted = [note for note in read_notes(first.notes) if note[0] == "record"]
    assert len(noted) == len(processed(first.notes)) == records


def test_start_offsets_decide_where_reading_starts(
    start: Callable[..., Child], children: Callable[[Child], Child]
) -> None:
    """`start_offsets` gets what is committed, and reading starts where it says, before or after that."""
    child = start(partitions=2)
    until_processed(child, everything(RECORDS, 2))
    assert child.end() == 0
    child.notes.unlink()
    second = children(child.again(2, starts={"0": 40, "1": 0}))
    until_processed(second, {(0, n) for n in range(40, 100)} | {(1, n) for n in range(100)})
    assert read_notes(child.notes)[0] == ["assigned", [0, 1]]
    assert asked(child.notes) == [{"0": 100, "1": 100}]
    assert min(offset for partition, offset in processed(child.notes) if partition == 0) == 40
    assert second.end() == 0
    assert [commit_of(child, partition) for partition in (0, 1)] == [100, 100]


def test_only_new_partitions_are_asked_about(
    start: Callable[..., Child], children: Callable[[Child], Child]
) -> None:
    """After a rebalance a partition that stays goes on where it was; `start_offsets` is not asked again."""
    first = start(partitions=2, held=HELD)
    until_processed(first, everything(RECORDS, 2))
    second = children(first.again(2, notes=first.config.notes + "2"))
    eventually(lambda: 1 in assignments(first.notes), "the second has joined", second)
    assert second.end() == 0
    eventually(lambda: len(asked(first.notes)) == 2, "the first has them all again", first)
    assert assignments(first.notes) == [2, 1, 2]
    assert [len(partitions) for partitions in asked(first.notes)] == [2, 1]


def test_a_topic_made_again_is_read_from_its_beginning(
    start: Callable[..., Child], each_broker: Broker
) -> None:
    """A running worker asks `start_offsets` about a topic that was made again, and so reads it whole."""
    child = start(records=50, starts={"0": 0})
    until_processed(child, everything(50))
    eventually(lambda: commit_of(child) == 50, "a commit", child)
    delete_topics(each_broker.bootstrap, [child.config.topic])
    eventually(lambda: 0 in assignments(child.notes), "the worker has seen it", child)
    os.truncate(child.notes, 0)
    create_topics(each_broker.bootstrap, [child.config.topic], 1)
    produce(each_broker.bootstrap, child.config.topic, [b"%d" % n for n in range(30)])
    until_processed(child, everything(30))
    eventually(lambda: commit_of(child) == 30, "a commit in the new life", child)


def test_sigterm_commits_what_is_done(start: Callable[..., Child]) -> None:
    """A worker told to end finishes its batch, commits, and exits with status 0."""
    child = start(delay=0.2, max_batch=20)
    eventually(lambda: processed(child.notes), "the worker is at work", child)
    assert child.end() == 0
    assert commit_of(child) == len(processed(child.notes))


@pytest.mark.parametrize("fault", ["handler", "member", "fetcher", "metadata"])
def test_whatever_dies_ends_the_worker(start: Callable[..., Child], fault: str) -> None:
    """An exception of the handler, or the silent end of one of the consumer's own tasks, ends the process with 1."""
    child = start(fault=fault)
    assert child.wait() == 1
    assert "the worker ends" in child.log()


@pytest.mark.kafka
@pytest.mark.parametrize("stock", [False, True])
def test_a_gap_in_the_offsets(
    kafka: str,
    new_topic: Callable[..., str],
    unique: str,
    logs: Path,
    children: Callable[[Child], Child],
    stock: bool,
) -> None:
    """The record after a gap is not taken for acknowledged; stock Faust commits past it."""
    topic = new_topic(kafka, 1)
    asyncio.run(_two_transactions(kafka, topic, unique))  # offsets 0-9, 11-20; a marker stands at 10
    config = Config(kafka, topic, unique, str(logs / "notes"), max_batch=10, held=[11], stock=stock)
    child = children(Child(config))
    until_processed(child, {(0, n) for n in range(21) if n != 10})
    lost_or_kept = 21 if stock else 10
    eventually(lambda: commit_of(child) == lost_or_kept, f"a commit at {lost_or_kept}", child)


@pytest.mark.kafka
def test_the_broker_crashes(
    kafka_to_crash: RealKafka,
    new_topic: Callable[..., str],
    unique: str,
    logs: Path,
    children: Callable[[Child], Child],
) -> None:
    """A worker outlives a crash of the broker: it goes on by itself, and nothing is missing."""
    kafka = kafka_to_crash.bootstrap
    topic = new_topic(kafka, 4)
    produce(kafka, topic, [b"%d" % n for n in range(4000)], 4)
    child = children(Child(Config(kafka, topic, unique, str(logs / "notes"), max_batch=20, delay=0.05)))
    eventually(lambda: len(processed(child.notes)) > 200, "the worker is at work", child)
    kafka_to_crash.kill()
    kafka_to_crash.resume()
    until_processed(child, everything(4000, 4))
    eventually(lambda: commit_of(child, 3) == 1000, "the last commit", child)
    assert child.end() == 0


async def _two_transactions(bootstrap: str, topic: str, name: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    await producer.start()
    try:
        for _ in range(2):
            async with producer.transaction():
                for number in range(10):
                    await producer.send(topic, b"%d" % number, partition=0)
    finally:
        await producer.stop()
