"""The sample of payments: the simulator, six hours of history at full speed, then the present, about one a second.

The world is always the same one, so a payment has the same id whoever makes it. Labels are sent when they are due: an
analyst's within the hour, chargebacks days later, as long as this runs.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Iterable, Iterator

from streams import records
from streams.guard import Out
from streams.payments.population import Scale
from streams.payments.scenarios import DAY, HOUR
from streams.payments.simulator import Payments, Simulator, labels, part, transactions
from streams.publisher import Publisher
from streams.records import LabelRecord, Record
from streams.settings import Settings
from streams.state.store import Store

log = logging.getLogger("tapewatch.replay")

SEED = 1
SCALE = Scale(accounts=7000, terminals=1400)  # one payment a second, so a day is 84,000
HISTORY = 6 * HOUR
AT_ONCE = 500
EVERY = 0.25  # seconds


async def play(settings: Settings, store: Store, publisher: Publisher) -> None:
    """Publish payments and labels until cancelled; the history only to a store that has seen no payment."""
    source = Source(await asyncio.to_thread(Simulator, SEED, SCALE))
    now = _now()
    seen = await asyncio.to_thread(store.outcomes, "transactions")
    if not seen:
        made = await asyncio.to_thread(lambda: list(source.until(now - HISTORY, now)))
        outs = [_out(settings, name, record) for name, record in made]
        for start in range(0, len(outs), AT_ONCE):
            await publisher.publish(outs[start : start + AT_ONCE])
        log.info("replayed %d payments and labels of the last %d hours", len(outs), HISTORY // HOUR)
    while True:
        since, now = now, max(now, _now())
        outs = [
            _out(settings, name, record)
            for name, record in await asyncio.to_thread(list, source.until(since, now))
        ]
        if outs:
            await publisher.publish(outs)
        await asyncio.sleep(EVERY)


class Source:
    """Payments and the labels that have come due, by time; ask for one stretch of time after the other."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._day: tuple[int, Payments] | None = None
        self._due: list[tuple[int, str, LabelRecord]] = []

    def until(self, since: int, until: int) -> Iterator[tuple[str, Record]]:
        """Short topic name and record of all that happens from one time to another (ms, the end excluded)."""
        for day in range(since // DAY, max(since, until - 1) // DAY + 1):
            made = part(self._of(day), since, until)
            found = transactions(made)
            for label in labels(made):
                heapq.heappush(self._due, (records.milliseconds(label.ts), label.id, label))
            for payment in found:
                yield from self._labels(records.milliseconds(payment.ts))
                yield "transactions", payment
        yield from self._labels(until)

    def _labels(self, until: int) -> Iterable[tuple[str, Record]]:
        while self._due and self._due[0][0] < until:
            yield "labels", heapq.heappop(self._due)[2]

    def _of(self, day: int) -> Payments:
        if self._day is None or self._day[0] != day:
            self._day = day, self._simulator.day(day)
        return self._day[1]


def _out(settings: Settings, name: str, record: Record) -> Out:
    return Out(settings.topic(name), records.key_of(name, record), records.encode(record))


def _now() -> int:
    return int(time.time() * 1000)
