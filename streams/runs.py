"""Runs of records, what of them may be committed, and the inbox where they wait. No Faust here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol


class FetchedRecord(Protocol):
    """A record as aiokafka's decoder makes it. `timestamp`: ms, of the producer or of the log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Run:
    """Consecutive records of one partition, in order of offset, never empty. Acknowledge it once, whole.

    Runs may be acknowledged in any order; nothing beyond an unacknowledged run is committed.
    """

    __slots__ = ("_on_ack", "acknowledged", "after", "partition", "records", "stale", "topic")

    def __init__(
        self, topic: str, partition: int, records: Sequence[FetchedRecord], on_ack: Callable[[], Any]
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.after = records[0].offset  # where reading stood: all of the partition below it went out before
        self.stale = False  # it will be read again: not to be handled any more
        self.acknowledged = False
        self._on_ack = on_ack

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.records[-1].offset + 1

    def ack(self) -> None:
        """All effects of these records are done. Without effect once the partition was taken away.

        Call it on the app's event loop.
        """
        self.acknowledged = True
        self._on_ack()


class Place(NamedTuple):
    """Where reading starts, and what the group had committed then (None: nothing, or something else)."""

    offset: int
    committed: int | None


class Progress:
    """One partition's strict rule: the committable offset is the end of the acknowledged prefix."""

    def __init__(self, place: Place) -> None:
        self.position = place.offset  # below it all is done
        self.committed = place.committed
        self._next = place.offset  # the offset after the last record delivered
        self._delivered: deque[Run] = deque()  # beyond the position

    def deliver(self, run: Run) -> None:
        """Note that a run goes out. One that starts below the last means that the log began anew."""
        first = run.records[0].offset
        if first < self._next:
            self._drop()
            self.position, self.committed, self._next = first, None, first
        run.after = self._next
        self._delivered.append(run)
        self._next = run.end

    def rewind(self) -> int:
        """Forget what was delivered and is not done; returns where to read on."""
        self.committable()
        self._drop()
        self._next = self.position
        return self.position

    def give_up(self, handled: Collection[Run]) -> None:
        """The partition goes: what is not in the handler's hands by now never comes there."""
        for run in self._delivered:
            run.stale = run not in handled

    def _drop(self) -> None:
        self.give_up(())
        self._delivered.clear()

    def committable(self) -> int | None:
        """The offset to commit, None where it is committed already."""
        while self._delivered and self._delivered[0].acknowledged:
            self.position = self._delivered.popleft().end
        return self.position if self.position != self.committed else None


class Inbox:
    """The runs that wait for the handler, bounded by their number of records."""

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._runs: deque[Run] = deque()
        self._records = 0
        self._changed = asyncio.Event()

    async def put(self, run: Run) -> None:
        """Wait for room, then add the run. A run that is larger than the inbox goes in alone."""
        while self._runs and self._records + len(run.records) > self._max_records:
            await self._wait()
        if run.stale:  # it became so while it waited
            return
        self._runs.append(run)
        self._records += len(run.records)
        self._changed.set()

    async def take(self) -> list[Run]:
        """Wait for a run; return all that wait, oldest first."""
        while not self._runs:
            await self._wait()
        runs = list(self._runs)
        self.clear()
        return runs

    def clear(self) -> None:
        """Forget what waits."""
        self._runs.clear()
        self._records = 0
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
