"""`tapewatch bench news`: what the whole path costs beyond the model, and how long a headline takes.

Throughput, interleaved rounds on the same real headlines: a worker (read from Kafka, scored, stored, published)
against the bare engine, both with one inference thread on the same one core, broker and store on the others; and
against a plain Faust agent that calls a `transformers` pipeline per event with the same weights (extra `train`). A
round's rate is taken between the first and the last scored record's append time, the first batch not counted.

Latency: open loop, 20 headlines a second, from the source record's append time to the scored one's.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topics
from streams.launch.embedded import EmbeddedBroker, EmbeddedStore
from streams.pipelines import all_topics
from streams.settings import Settings, read_settings
from streams.state.store import Store
from tests import real_kafka
from tests.streams.crash import wait_for
from tests.streams.loads import titles

ROUND = 2_000  # headlines of a round
PER_EVENT = 150  # of a round of the plain agent
SECONDS = 30  # of the latency trial
RATE = 20.0  # headlines a second
BATCH = 256  # texts handed to the bare engine at once, as the pipeline does
ROOT = Path(__file__).resolve().parents[2]


def run(rounds: int = 5) -> list[dict[str, Any]]:
    """The figures, as the contract's `bench` prints them."""
    found: list[dict[str, Any]] = []
    with _world("kafka" if not real_kafka.missing() else "embedded") as settings:
        found += _throughput(settings, rounds)
    for kind, bars in (("embedded", (30.0, 80.0)), ("kafka", (20.0, 60.0))):
        if kind == "kafka" and (reason := real_kafka.missing()):
            print(f"latency on a real Kafka not measured: {reason}", file=sys.stderr)
            continue
        with _world(kind) as settings:
            found += _latency(settings, kind, bars)
    return found


@contextmanager
def _world(kind: str) -> Iterator[Settings]:
    """Broker, store, topics; broker and store off the first core, which is the worker's."""
    with ExitStack() as stack:
        store = stack.enter_context(EmbeddedStore())
        _pin(store.pid, others=True)
        if kind == "kafka":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bootstrap = stack.enter_context(_kafka_off_first_core(folder)).bootstrap
        else:
            broker = stack.enter_context(EmbeddedBroker())
            _pin(broker.pid, others=True)
            bootstrap = broker.bootstrap
        own = {"TAPEWATCH_KAFKA": bootstrap, "TAPEWATCH_REDIS": store.url}
        settings = replace(read_settings({**os.environ, **own}), prefix=f"bench{uuid.uuid4().hex[:6]}")
        config = {"message.timestamp.type": "LogAppendTime"} if kind == "kafka" else {}
        specs = [topics.TopicSpec(name, None, config) for name in all_topics(settings)]
        topics.create_topics(bootstrap, specs, settings.partitions)
        yield settings


@contextmanager
def _kafka_off_first_core(folder: Path) -> Iterator[real_kafka.RealKafka]:
    """A real broker whose threads stay off the first core (children inherit the affinity)."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _others())
    try:
        server = real_kafka.RealKafka(folder).start()
    finally:
        os.sched_setaffinity(0, mine)
    try:
        yield server
    finally:
        server.wipe()


def _others() -> set[int]:
    every = sorted(os.sched_getaffinity(0))
    return set(every[1:]) or set(every)


def _first() -> int:
    return min(os.sched_getaffinity(0))


def _pin(pid: int | None, others: bool) -> None:
    if pid is not None:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), _others() if others else {_first()})


@contextmanager
def _child(command: Sequence[str], settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process on the first core, ended at the end of the block."""
    environment = {
        **os.environ,
        **settings.environment(),
        "TAPEWATCH_THREADS": "1",
        "TAPEWATCH_EMBEDDED": "0",
        "TAPEWATCH_LOG_LEVEL": "ERROR",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        ["taskset", "-c", str(_first()), *command],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _throughput(settings: Settings, rounds: int) -> list[dict[str, Any]]:
    store = Store(settings.redis, settings.prefix)
    texts = titles(ROUND * rounds)
    rates: dict[str, list[float]] = {"path": [], "engine": [], "plain": []}
    plain_possible = find_spec("torch") is not None and find_spec("transformers") is not None
    with ExitStack() as stack:
        engine = stack.enter_context(_child([sys.executable, "-m", "tests.benchmarks.bare_engine"], settings))
        worker = [sys.executable, "-m", "streams.launch.worker", "news"]
        stack.enter_context(_child(worker, settings))
        asyncio.run(_send(settings, ["warm up"] * 8, "warm", 0.0))
        wait_for("the worker is warm", lambda: sum(store.outcomes("news").values()) >= 8, 60)
        plain = None
        if plain_possible:
            module = "tests.benchmarks.plain_agent"
            plain = stack.enter_context(_child([sys.executable, "-m", module], settings))
            _ask(plain, ["warm up"])
        for number in range(rounds):
            chosen = texts[number * ROUND : (number + 1) * ROUND]
            rates["engine"].append(_ask(engine, chosen))
            before = sum(store.outcomes("news").values())
            asyncio.run(_send(settings, chosen, f"r{number}", 0.0))
            wait_for("the round is done", lambda b=before: _outcomes(store) >= b + ROUND, 300)  # type: ignore[misc]
            rates["path"].append(asyncio.run(_rate(settings, f"r{number}-", ROUND)))
            if plain is not None:
                rates["plain"].append(_ask(plain, chosen[:PER_EVENT]))
            print(f"round {number + 1}: " + _told(rates), file=sys.stderr)
    figures = [
        _figure("news.events_per_second", rates["path"], "1/s"),
        _figure("engine.sentences_per_second", rates["engine"], "1/s"),
        _ratio(
            "news.path_to_engine",
            rates["path"],
            rates["engine"],
            "bare engine, same texts, thread and core",
            0.85,
        ),
    ]
    if rates["plain"]:
        against = "plain Faust agent, transformers pipeline per event, same weights"
        figures.append(_ratio("news.path_to_plain_faust", rates["path"], rates["plain"], against, 5.0))
    else:
        print("plain Faust agent not measured: the extra `train` is not installed", file=sys.stderr)
    return figures


def _outcomes(store: Store) -> int:
    return sum(store.outcomes("news").values())


def _told(rates: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items() if found)


def _ask(process: subprocess.Popen[str], texts: Sequence[str]) -> float:
    """Have a child work through these texts; the rate that it measured."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(list(texts)) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if "rate " in line:  # Faust puts terminal codes before it
            return float(line.rpartition("rate ")[2])
    raise RuntimeError(f"a part of the benchmark ended: {process.args!r}")


async def _send(settings: Settings, texts: Sequence[str], prefix: str, interval: float) -> None:
    """Publish headlines, at once or one each `interval` seconds whatever becomes of them."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=0 if interval else 5, acks="all")
    await producer.start()
    began, waiting = time.monotonic(), []
    for index, title in enumerate(texts):
        if interval:
            await asyncio.sleep(max(0.0, began + index * interval - time.monotonic()))
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        identity = f"{prefix}-{index}"
        value = json.dumps({"id": identity, "ts": at, "source": "bench", "title": title}).encode()
        waiting.append(await producer.send(settings.topic("news"), value, key=identity.encode()))
    await asyncio.gather(*waiting)
    await producer.stop()


async def _appended(settings: Settings, name: str, prefix: str) -> dict[str, int]:
    """Append time in ms of each record of a topic whose id has this prefix."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.topic(name), number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: dict[str, int] = {}
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    identity = json.loads(record.value)["id"]
                    if identity.startswith(prefix):
                        found.setdefault(identity, record.timestamp)
        return found
    finally:
        await consumer.stop()


async def _rate(settings: Settings, prefix: str, count: int) -> float:
    """Records a second between the first batch's append and the last's."""
    deadline = time.monotonic() + 30
    while len(found := await _appended(settings, "news.scored", prefix)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count - len(found)} scored records are missing")
        await asyncio.sleep(0.1)
    stamps = sorted(found.values())
    first, last = stamps[0] + 20, stamps[-1]  # 20 ms: one batch's records are appended within it
    return sum(stamp > first for stamp in stamps) / (last - stamps[0]) * 1000


def _latency(settings: Settings, kind: str, bars: tuple[float, float]) -> list[dict[str, Any]]:
    store = Store(settings.redis, settings.prefix)
    environment = {
        **os.environ,
        **settings.environment(),
        "TAPEWATCH_EMBEDDED": str(int(kind == "embedded")),
        "TAPEWATCH_LOG_LEVEL": "ERROR",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "streams.launch.worker", "news"], env=environment, cwd=ROOT
    )
    try:
        asyncio.run(_send(settings, ["warm up"] * 8, "warm", 0.0))
        wait_for("the worker is warm", lambda: _outcomes(store) >= 8, 60)
        count = int(SECONDS * RATE)
        asyncio.run(_send(settings, titles(count), "open", 1 / RATE))
        wait_for("all are scored", lambda: _outcomes(store) >= count + 8, 60)
        time.sleep(1.0)  # the last publication
        came = asyncio.run(_appended(settings, "news", "open-"))
        went = asyncio.run(_appended(settings, "news.scored", "open-"))
    finally:
        worker.terminate()
        worker.wait(20)
    taken = sorted(went[name] - came[name] for name in came)
    middle, tail = statistics.median(taken), taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    return [
        _bar(f"news.latency_p50.{kind}", float(middle), "ms", taken, bars[0]),
        _bar(f"news.latency_p99.{kind}", float(tail), "ms", taken, bars[1]),
    ]


def _bar(name: str, value: float, unit: str, taken: Sequence[float], bar: float) -> dict[str, Any]:
    return {
        "figure": name,
        "value": value,
        "unit": unit,
        "n": len(taken),
        "spread": [taken[0], taken[-1]],
        "against": "open loop, 20 headlines/s, append time to append time",
        "bar": bar,
        "ok": value <= bar,
    }


def _figure(name: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    return {
        "figure": name,
        "value": round(statistics.median(values), 3),
        "unit": unit,
        "n": len(values),
        "spread": [round(min(values), 3), round(max(values), 3)],
        "against": None,
        "bar": None,
        "ok": None,
    }


def _ratio(
    name: str, ours: Sequence[float], theirs: Sequence[float], against: str, bar: float
) -> dict[str, Any]:
    figure = _figure(name, [mine / other for mine, other in zip(ours, theirs, strict=True)], "ratio")
    return figure | {"against": against, "bar": bar, "ok": figure["value"] >= bar}
