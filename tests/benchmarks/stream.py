"""`tapewatch bench stream`: records/s through our transport, against its floor and its rivals.

One topic of four partitions is filled once, with JSON headlines of about 300 bytes. Each consumer is a
process of its own that reads it from the beginning in a new group, decodes each record with msgspec into
the same struct, and commits each second where it can (Bytewax keeps offsets in its own recovery store,
which is off). Its rate is taken inside the process, from the arrival of its first record to the decoding of
its last: start-up and joining are left out for all. Rounds are interleaved: each consumer once a round, in
turn; a figure is the median of the rounds' ratios, its spread the smallest and the largest. Stock Faust
reads the first part of the topic only, else a round would take minutes. The broker is a real Kafka where
one can be had, else the embedded one: the unit says which.

Quix Streams and Bytewax run in environments of their own, made on first use from exact pins
(`locks/bench-quix.txt`, `locks/bench-bytewax.txt`: they need different confluent-kafka).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from streams.launch.embedded import EmbeddedBroker
from streams.topics import create_topics
from tests import real_kafka
from tests.benchmarks.consumers.meter import Job

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 600_000
RECORDS_EMBEDDED = 200_000  # its memory holds them for good
SLOW = 60_000  # what stock Faust reads
PARTITIONS = 4
CHILD_WITHIN = 180  # seconds
INSTALL_WITHIN = 600


class Rival(NamedTuple):
    """One consumer: its module, the lock of its environment (None: ours), records it reads, and our bar against it."""

    module: str
    lock: str | None
    records: int
    label: str
    bar: float


RIVALS = (
    Rival("by_aiokafka", None, RECORDS, "bare aiokafka getmany", 0.5),
    Rival("by_faust", None, SLOW, "stock Faust agent", 15.0),
    Rival("by_quix", "bench-quix", RECORDS, "Quix Streams 3.28.1", 2.0),
    Rival("by_bytewax", "bench-bytewax", RECORDS, "Bytewax 0.21.1", 1.0),
)


def run(rounds: int = 5) -> list[dict[str, Any]]:
    """The figures, as the contract's `bench` prints them; null with a reason where a rival cannot run."""
    pythons, reasons = _environments()
    with _broker() as (bootstrap, fetch_wait_ms, kind):
        records = RECORDS if kind == "real Kafka" else RECORDS_EMBEDDED
        topic = f"bench.{uuid.uuid4().hex[:6]}"
        create_topics(bootstrap, [topic], PARTITIONS)
        asyncio.run(_fill(bootstrap, topic, records))
        ours: list[float] = []
        theirs: dict[str, list[float]] = {rival.module: [] for rival in RIVALS}

        def rate(module: str, python: str, total: int) -> float:
            job = Job(bootstrap, topic, f"bench-{uuid.uuid4().hex[:8]}", min(total, records), fetch_wait_ms)
            return _rate(module, python, job)

        rate("by_aiokafka", sys.executable, records)  # the log is in the page cache now, for everybody
        for _ in range(rounds):
            ours.append(rate("by_tapewatch", sys.executable, records))
            for rival in RIVALS:
                if rival.module in reasons:
                    continue
                try:
                    theirs[rival.module].append(rate(rival.module, pythons[rival.module], rival.records))
                except RivalFailed as failure:
                    reasons[rival.module] = str(failure)
    figures = [_absolute("ours", ours, kind, None)]
    for rival in RIVALS:
        figures += _against(rival, ours, theirs[rival.module], kind, reasons.get(rival.module))
    return figures


class RivalFailed(RuntimeError):
    """A consumer did not report a rate; the end of what it printed."""


def _against(
    rival: Rival, ours: list[float], theirs: list[float], kind: str, reason: str | None
) -> list[dict[str, Any]]:
    if reason is not None or not theirs:
        return [
            {
                "figure": f"records/s of ours / {rival.label}",
                "value": None,
                "unit": f"ratio ({kind})",
                "n": 0,
                "spread": None,
                "against": rival.label,
                "bar": rival.bar,
                "ok": None,
                "reason": reason or "it never ran",
            }
        ]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    value = statistics.median(ratios)
    ratio = {
        "figure": f"records/s of ours / {rival.label}",
        "value": round(value, 2),
        "unit": f"ratio ({kind})",
        "n": len(ratios),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "against": rival.label,
        "bar": rival.bar,
        "ok": value >= rival.bar,
    }
    return [ratio, _absolute(rival.label, theirs, kind, rival.label)]


def _absolute(label: str, rates: list[float], kind: str, against: str | None) -> dict[str, Any]:
    return {
        "figure": f"records/s of {label}",
        "value": round(statistics.median(rates)),
        "unit": f"1/s ({kind})",
        "n": len(rates),
        "spread": [round(min(rates)), round(max(rates))],
        "against": against,
        "bar": None,
        "ok": None,
    }


def _rate(module: str, python: str, job: Job) -> float:
    try:
        done = subprocess.run(
            [python, "-m", f"tests.benchmarks.consumers.{module}", json.dumps(job)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=CHILD_WITHIN,
        )
    except subprocess.TimeoutExpired:
        raise RivalFailed(f"no result within {CHILD_WITHIN} s") from None
    try:
        report = json.loads(done.stdout.strip().splitlines()[-1])
        return float(report["records"] / report["seconds"])
    except (IndexError, ValueError, KeyError):
        raise RivalFailed((done.stderr.strip().splitlines() or ["no output"])[-1]) from None


@contextmanager
def _broker() -> Iterator[tuple[str, int | None, str]]:
    if real_kafka.missing():
        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap, 10, "embedded broker"
        return
    with tempfile.TemporaryDirectory() as folder, real_kafka.RealKafka(Path(folder)) as kafka:
        yield kafka.bootstrap, None, "real Kafka"


async def _fill(bootstrap: str, topic: str, records: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=256 * 1024, acks=1)
    await producer.start()
    try:
        waiting: list[Any] = []
        batch = producer.create_batch()
        for number in range(records):
            value = _headline(number)
            if batch.append(key=None, value=value, timestamp=None) is None:
                waiting.append(await producer.send_batch(batch, topic, partition=len(waiting) % PARTITIONS))
                batch = producer.create_batch()
                batch.append(key=None, value=value, timestamp=None)
        waiting.append(await producer.send_batch(batch, topic, partition=0))
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


def _headline(number: int) -> bytes:
    return json.dumps(
        {
            "id": f"bench-{number:09d}",
            "ts": "2026-11-20T09:30:00Z",
            "source": "wire",
            "title": f"Example Holdings raises its outlook for quarter {number % 4 + 1} after strong demand",
            "body": "The company said on Friday that orders had grown in all regions.",
            "url": f"https://news.example/{number}",
            "lang": "en",
            "symbols": ["EXH", "EXM"],
        }
    ).encode()


def _environments() -> tuple[dict[str, str], dict[str, str]]:
    """The interpreter of each rival, and why one has none."""
    pythons, reasons = {}, {}
    for rival in RIVALS:
        try:
            pythons[rival.module] = sys.executable if rival.lock is None else _environment(rival.lock)
        except (OSError, subprocess.SubprocessError) as problem:
            reasons[rival.module] = f"its environment could not be made: {problem}"
    return pythons, reasons


def _environment(lock: str) -> str:
    """An environment of exactly what the lock says, kept for the next time."""
    pins = ROOT / "locks" / f"{lock}.txt"
    folder = ROOT / f".venv-{lock}"
    python, made_of = folder / "bin" / "python", folder / "made-of.txt"
    if not made_of.is_file() or made_of.read_text() != pins.read_text():
        venv.create(folder, clear=True, with_pip=True)
        install = ("install", "--quiet", "--no-deps", "--only-binary=:all:", "-r", str(pins))
        subprocess.run(
            [str(python), "-m", "pip", *install], check=True, timeout=INSTALL_WITHIN, stdout=sys.stderr
        )
        made_of.write_text(pins.read_text())
    return str(python)
