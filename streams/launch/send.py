"""`tapewatch send`: a file onto a topic, with progress."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping

from streams import records
from streams.guard import Out
from streams.launch.files import read_records
from streams.launch.rows import Tolerance
from streams.publisher import Publisher
from streams.records import DERIVED, SOURCES
from streams.settings import Settings

AT_ONCE = 500
REPORT_EVERY = 2.0  # seconds


class UnknownTopic(ValueError):
    """The topic is none of the contract's."""


def send(settings: Settings, topic: str, path: str, mapping: Mapping[str, str]) -> int:
    """Publish the rows of a file; returns how many. Wrong rows are reported and skipped.

    Raises UnknownTopic, and DataFileError when the file cannot be read or more than one row in ten is wrong (all
    good rows are sent before that is known).
    """
    short = topic.removeprefix(settings.prefix + ".")
    kind = (SOURCES | DERIVED).get(short)
    if kind is None:
        raise UnknownTopic(f"{topic!r} is none of the topics {', '.join((*SOURCES, *DERIVED))}")
    return asyncio.run(_send(settings, short, path, mapping))


async def _send(settings: Settings, short: str, path: str, mapping: Mapping[str, str]) -> int:
    publisher = Publisher(settings.kafka)
    await publisher.start()
    tolerance, topic = Tolerance(path), settings.topic(short)
    waiting: list[Out] = []
    reported = time.monotonic()
    try:
        for line in read_records(path, (SOURCES | DERIVED)[short], mapping, time.time()):
            if line.record is None:
                tolerance.reject(line.number, line.error)
                continue
            tolerance.accept()
            waiting.append(Out(topic, records.key_of(short, line.record), line.raw))
            if len(waiting) >= AT_ONCE or path == "-":
                await publisher.publish(waiting)
                waiting = []
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                print(f"{tolerance.good - len(waiting):,} records sent to {topic}", file=sys.stderr)
        await publisher.publish(waiting)
    finally:
        await publisher.stop()
    skipped = f", {tolerance.wrong:,} rows skipped" if tolerance.wrong else ""
    print(f"{tolerance.good:,} records sent to {topic}{skipped}", file=sys.stderr)
    tolerance.judge()
    return tolerance.good
