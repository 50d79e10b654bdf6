"""What every consumer of `bench stream` does with a record, and how its rate is taken.

Imported by rivals in environments of their own: the standard library and msgspec only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

import msgspec


class Job(NamedTuple):
    """What a consumer is told: read `total` records of a topic from its beginning, in the group named."""

    bootstrap: str
    topic: str
    group: str
    total: int
    fetch_wait_ms: int | None


class Headline(msgspec.Struct):
    """The record: about 300 bytes of JSON."""

    id: str
    ts: str
    source: str
    title: str
    body: str = ""
    url: str = ""
    lang: str = ""
    symbols: list[str] = []


class Meter:
    """Decodes records and counts them; at the last one it reports and ends the process.

    The clock runs from the first record's arrival to the last one's decoding: start-up and joining a group are
    not counted for anybody.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._began = 0.0
        self._decode = msgspec.json.Decoder(Headline).decode

    def one(self, value: bytes) -> Headline:
        """Decode one record."""
        if not self._count:
            self._began = time.perf_counter()
        headline = self._decode(value)
        self._count += 1
        if self._count >= self._total:
            self._report()
        return headline

    def all(self, values: Iterable[bytes]) -> list[Headline]:
        """Decode many records."""
        if not self._count:
            self._began = time.perf_counter()
        decode = self._decode
        headlines = [decode(value) for value in values]
        self._count += len(headlines)
        if self._count >= self._total:
            self._report()
        return headlines

    def _report(self) -> NoReturn:
        seconds = time.perf_counter() - self._began
        sys.stdout.write(json.dumps({"records": self._count, "seconds": seconds}) + "\n")
        sys.stdout.flush()
        os._exit(0)  # no goodbyes: they take seconds, and some wait for more records


def read_job() -> Job:
    """The job on the command line."""
    return Job(*json.loads(sys.argv[1]))
