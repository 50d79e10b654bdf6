"""A crash run: real workers are killed while they work, then every record is accounted for.

Used by `test_crash.py` in a short seeded form and by `make soak` in the long one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.launch.supervise import START_AGAIN
from streams.settings import Settings
from streams.state.store import Store
from tests.streams.loads import NEWS, Load


@dataclass
class Sent:
    """What was produced: ids of good records, places of poison."""

    ids: set[str] = field(default_factory=set)
    poison: set[tuple[int, int]] = field(default_factory=set)

    @property
    def total(self) -> int:
        return len(self.ids) + len(self.poison)


@dataclass
class Account:
    """What was found at the end."""

    outcomes: dict[str, int]
    scored: set[str]
    published: int
    dead: set[tuple[int, int]]
    counted: int  # records in the state


async def produce(
    settings: Settings, count: int, poison_share: float, seed: int, prefix: str = "crash", load: Load = NEWS
) -> Sent:
    """Put `count` records on the source topic at once, some of them poison."""
    generator = random.Random(seed)
    sent = Sent()
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=5, acks="all")
    await producer.start()
    topic, now = settings.topic(load.source), time.time()
    waiting: list[tuple[str | None, Any]] = []
    for index, fields in enumerate(load.records(count)):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - generator.random() * 3600))
        identity = f"{prefix}-{index}"
        if generator.random() < poison_share:
            waiting.append(
                (None, await producer.send(topic, generator.choice(load.poison), key=identity.encode()))
            )
            continue
        record = {"id": identity, "ts": at, **fields}
        key = str(fields.get(load.key, identity)).encode()
        waiting.append((identity, await producer.send(topic, json.dumps(record).encode(), key=key)))
    for sent_id, future in waiting:
        place = await future
        if sent_id is None:
            sent.poison.add((place.partition, place.offset))
        else:
            sent.ids.add(sent_id)
    await producer.stop()
    return sent


async def read_all(bootstrap: str, topic: str) -> list[tuple[bytes, dict[str, bytes]]]:
    """Every record of a topic as (value, headers)."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [(record.value, dict(record.headers)) for record in records]
        return found
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.set_topics([topic])
    deadline = time.monotonic() + 10
    found: set[int] = set()
    while not found:
        assert time.monotonic() < deadline, f"no topic {topic}"
        await asyncio.sleep(0.02)
        found = consumer.partitions_for_topic(topic) or set()
    return found


class Workers:
    """Worker processes of one pipeline, started, killed and ended at will."""

    def __init__(self, settings: Settings, pipeline: str = "news", embedded: bool = True) -> None:
        self._environment = {
            **os.environ,
            **settings.environment(),
            "TAPEWATCH_ENGINE": "tiny",
            "TAPEWATCH_EMBEDDED": str(int(embedded)),
            "TAPEWATCH_THREADS": "1",
        }
        self._pipeline = pipeline
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streams.launch.worker", self._pipeline]
        process = subprocess.Popen(command, env=self._environment, start_new_session=True)
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        process.send_signal(number)
        process.wait(20)
        self.processes.remove(process)

    def revive(self) -> None:
        """Start again who asks for it, as the supervisor does; any other end of a worker is a failure."""
        for process in [process for process in self.processes if process.poll() is not None]:
            assert process.returncode == START_AGAIN, f"a worker ended with status {process.returncode}"
            self.processes.remove(process)
            self.start()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@contextmanager
def workers(settings: Settings, embedded: bool = True, load: Load = NEWS) -> Iterator[Workers]:
    """Workers that are ended at the end of the block."""
    made = Workers(settings, load.pipeline, embedded)
    try:
        yield made
    finally:
        made.stop()


def wait_for(
    what: str, condition: Callable[[], bool], within: float, meanwhile: Callable[[], None] | None = None
) -> None:
    """Poll until the condition holds; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"after {within:.0f} s still not: {what}"
        if meanwhile:
            meanwhile()
        time.sleep(0.02)


def kill_at_random(
    made: Workers, store: Store, total: int, kills: int, seed: int, *, spare: bool = False, load: Load = NEWS
) -> None:
    """Kill a worker each time the records done pass one of `kills` random marks; a new one takes its place.

    With `spare` a second worker joins and leaves (by SIGTERM) as well.
    """
    generator = random.Random(seed)
    made.start()
    for number, mark in enumerate(sorted(generator.sample(range(total), kills))):
        if spare and number % 2 == 0:
            made.start()
        wait_for(f"{mark} records done", lambda mark=mark: done(store, load) >= mark, 120, made.revive)  # type: ignore[misc]
        time.sleep(generator.random() * 0.05)  # the moment itself is drawn, it waits for nothing
        victim = generator.choice(made.processes)
        made.kill(victim, signal.SIGTERM if spare and number % 3 == 2 else signal.SIGKILL)
        if not made.processes:
            made.start()
    wait_for("all records done", lambda: done(store, load) >= total, 180, made.revive)


def done(store: Store, load: Load = NEWS) -> int:
    """Records that ended in some outcome."""
    return sum(store.outcomes(load.pipeline).values())


def account(settings: Settings, store: Store, sent: Sent, within: float = 60, load: Load = NEWS) -> Account:
    """Read back everything that there is; publishing ends after the effects, so it is waited for."""
    deadline = time.monotonic() + within
    while True:
        found = _account(settings, store, load)
        if (len(found.scored), len(found.dead)) == (len(sent.ids), len(sent.poison)):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _account(settings: Settings, store: Store, load: Load) -> Account:
    scored = asyncio.run(read_all(settings.kafka, settings.topic(load.derived)))
    dead = asyncio.run(read_all(settings.kafka, settings.topic(load.source) + ".dlq"))
    return Account(
        outcomes=store.outcomes(load.pipeline),
        scored={json.loads(value)["id"] for value, _ in scored},
        published=len(scored),
        dead={(int(headers["dlq.partition"]), int(headers["dlq.offset"])) for _, headers in dead},
        counted=load.counted(store),
    )


def verify(sent: Sent, found: Account) -> None:
    """Nothing lost, nothing counted twice, the dead letters exactly the poison, the outcomes add up."""
    assert sent.ids - found.scored == set()
    assert found.scored - sent.ids == set()
    assert found.dead == sent.poison
    assert found.outcomes == {"scored": len(sent.ids), "dead_letter": len(sent.poison)}
    assert found.counted == len(sent.ids)


def summary(sent: Sent, found: Account, kills: int) -> str:
    """The run in one line, for `make soak`."""
    counts = Counter(found.outcomes)
    return (
        f"{kills} kills, {sent.total} records read: {counts['scored']} scored, {counts['dead_letter']} dead letters "
        f"(poison {len(sent.poison)}); lost {len(sent.ids - found.scored)}, counted twice "
        f"{found.counted - len(sent.ids)}; published {found.published} for {len(found.scored)} ids"
    )
