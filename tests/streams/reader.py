"""A worker in a process of its own, ours or stock Faust, that notes each record it processes: to be killed by tests.

Run as `python -m tests.streams.reader CONFIG` with a JSON `Config`. Each note is one line, written at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import transport
from streams.launch.embedded import spawn
from streams.transport import TP, Run

WITHIN = 120.0  # seconds: how long a test waits for anything at most


@dataclass(frozen=True)
class Config:
    """What the child does."""

    bootstrap: str
    topic: str
    group: str
    notes: str  # the file that it writes to
    fetch_wait_ms: int | None = None
    stock: bool = False
    max_batch: int = 10
    held: list[int] = field(
        default_factory=list
    )  # records at these offsets (ours: their runs) stay unacknowledged
    delay: float = 0.0  # seconds of work on each list of runs
    starts: dict[str, int] | None = None  # partition -> where to start
    flow_stops: int = 0  # how often the flow is stopped and resumed
    fault: str = (
        ""  # "handler": an exception leaves it; "member", "fetcher", "metadata": the consumer's task ends
    )


class Child:
    """The child and its notes, from the parent's side."""

    def __init__(self, config: Config, number: int = 1) -> None:
        self.config = config
        self.notes = Path(config.notes)
        self._log = self.notes.with_suffix(f".{number}.log")
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.streams.reader", json.dumps(asdict(config))]
            self.process = spawn(command, death_signal=signal.SIGKILL, stdout=log, stderr=log)

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text()

    def kill(self) -> None:
        """A crash."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        try:
            return self.process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def again(self, number: int, **changes: Any) -> Child:
        """Another child of the same group."""
        return Child(replace(self.config, **changes), number)


def processed(notes: Path) -> set[tuple[int, int]]:
    """Partition and offset of each record that was noted."""
    return {(note[1], note[2]) for note in read_notes(notes) if note[0] == "record"}


def read_notes(notes: Path) -> list[list[Any]]:
    """All whole lines."""
    lines = notes.read_text().splitlines(keepends=True) if notes.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def eventually(condition: Callable[[], Any], what: str, child: Child | None = None) -> Any:
    """Poll until the condition holds; returns its value. Fails after two minutes."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {WITHIN:.0f} s: {what}" + (f"\n{child.log()[-3000:]}" if child else ""))


def produce(bootstrap: str, topic: str, values: list[bytes], partitions: int = 1) -> None:
    """Write values to the partitions in turn."""

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        try:
            sent = [
                await producer.send(topic, value, partition=n % partitions) for n, value in enumerate(values)
            ]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    asyncio.run(send())


def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> int | None:
    """What the group has committed."""

    async def ask() -> int | None:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            found: int | None = await consumer.committed(place)
            return found
        finally:
            await consumer.stop()

    return asyncio.run(ask())


class _Notes:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *notes: tuple[Any, ...]) -> None:
        os.write(self._file, "".join(json.dumps(note) + "\n" for note in notes).encode())


def _ours(config: Config, notes: _Notes) -> faust.App:
    async def start_offsets(known: Mapping[TP, int | None]) -> dict[TP, int]:
        notes.write(("asked", {str(tp.partition): offset for tp, offset in known.items()}))
        starts = config.starts or {}
        return {tp: starts[str(tp.partition)] for tp in known if str(tp.partition) in starts}

    async def assigned(partitions: set[TP]) -> None:
        notes.write(("assigned", sorted(tp.partition for tp in partitions)))

    async def revoked(partitions: set[TP]) -> None:
        notes.write(("revoked", sorted(tp.partition for tp in partitions)))

    async def handler(runs: list[Run]) -> None:
        if config.fault == "handler":
            raise RuntimeError("the handler's own")
        await asyncio.sleep(config.delay)
        for run in runs:
            notes.write(*(("record", run.partition, record.offset) for record in run.records))
            if not any(record.offset in config.held for record in run.records):
                run.ack()

    app = transport.make_app(
        "reader",
        bootstrap=config.bootstrap,
        group=config.group,
        max_batch_records=config.max_batch,
        fetch_wait_ms=config.fetch_wait_ms,
        start_offsets=start_offsets,
        on_assigned=assigned,
        on_revoked=revoked,
    )
    transport.consume(app, [config.topic], handler, 10 * config.max_batch)
    return app


def _stock(config: Config, notes: _Notes) -> faust.App:
    app = faust.App(
        config.group,
        broker=f"aiokafka://{config.bootstrap}",
        broker_max_poll_records=config.max_batch,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=0.2,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )

    @app.agent(app.topic(config.topic, value_type=bytes, value_serializer="raw"))
    async def reader(stream: Any) -> None:
        held = []
        async for event in stream.noack().events():
            notes.write(("record", event.message.partition, event.message.offset))
            if event.message.offset in config.held:
                held.append(event)
            else:
                event.ack()

    return app


def _beside(config: Config, app: faust.App, path: Path) -> Callable[[], Any]:
    async def more_than(count: int) -> None:
        while len(processed(path)) <= count:  # noqa: ASYNC110 - it looks at a file
            await asyncio.sleep(0.002)

    async def stop_the_flow() -> None:
        for _ in range(config.flow_stops):
            await more_than(len(processed(path)) + 4)
            app.consumer.stop_flow()
            await asyncio.sleep(0.05)
            app.consumer.resume_flow()
        await asyncio.Event().wait()

    async def end_a_task() -> None:
        await more_than(0)
        consumer = transport.Intake(app)._consumer.thread._ensure_consumer()
        owner, name = {
            "member": (consumer._coordinator, "_coordination_task"),
            "fetcher": (consumer._fetcher, "_fetch_task"),
            "metadata": (consumer._client, "_sync_task"),
        }[config.fault]
        getattr(owner, name).get_loop().call_soon_threadsafe(getattr(owner, name).cancel)
        await asyncio.Event().wait()

    return end_a_task if config.fault in ("member", "fetcher", "metadata") else stop_the_flow


def main() -> int:
    """The child's side."""
    config = Config(**json.loads(sys.argv[1]))
    notes = _Notes(config.notes)
    app = _stock(config, notes) if config.stock else _ours(config, notes)
    return transport.run(app, _beside(config, app, Path(config.notes)))


if __name__ == "__main__":
    sys.exit(main())
