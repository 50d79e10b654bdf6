"""Publish records by the batch: all replicas have them when `publish` returns.

Faust's own `send` costs twenty times as much a record, and gives up when the broker is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownError

from streams.topics import ask_without_creating

log = logging.getLogger("tapewatch.publisher")

MAX_REQUEST_BYTES = 1_500_000  # above a broker's default limit of a record, so that the broker decides
BATCH_BYTES = 256 * 1024  # of one partition in one request
REQUEST_TIMEOUT_MS = 10_000
STOP_WITHIN = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries

Sendable = tuple[str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]


class Unsendable(Exception):
    """The broker will never take these records (`records`: their indices in the batch), each is too large."""

    def __init__(self, records: Sequence[int], problem: BaseException) -> None:
        super().__init__(f"{len(records)} records cannot be sent: {problem}")
        self.records = list(records)


class Publisher:
    """A producer that outlives its broker's failures.

    `idempotent` None: with Kafka the broker drops what a retry sends twice; a broker that refuses that (the
    embedded one) gets a plain producer.
    """

    def __init__(self, bootstrap: str, idempotent: bool | None = None) -> None:
        self._bootstrap = bootstrap
        self._idempotent = idempotent
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._reported = False

    async def start(self) -> None:
        """Connect; waits for a broker that is away."""
        await self._open_patiently()

    async def stop(self) -> None:
        """Close the connection. What `publish` has returned for is safe anyway."""
        if self._producer is not None:
            await self._close(self._producer)

    async def publish(self, records: Sequence[Sendable]) -> None:
        """Send all; returns when every in-sync replica has them. Tries for as long as the broker is away.

        A failed record is sent again with all that follow it, so that each key keeps its last word; some
        may so arrive twice. Raises Unsendable when the others have arrived and some never can.
        """
        waiting = list(enumerate(records))
        refused: list[int] = []
        reason: BaseException | None = None
        pause = FIRST_PAUSE
        while waiting:
            producer = await self._open_patiently()
            results = await self._send(producer, [record for _, record in waiting])
            failed = [place for place, problem in enumerate(results) if problem is not None]
            if too_large := [
                place for place in failed if isinstance(results[place], MessageSizeTooLargeError)
            ]:
                alone = too_large if len(too_large) == 1 else await self._alone(producer, waiting, too_large)
                refused += [waiting[place][0] for place in alone]
                reason = results[alone[0]] if alone else reason
                failed = [place for place in failed if place not in too_large or place in alone]
                too_large = alone
            again = [place for place in failed if place not in too_large]
            if not again:
                self._report(None)
                break
            problem = results[again[0]]
            assert problem is not None
            waiting = [
                item for place, item in enumerate(waiting) if place >= again[0] and place not in too_large
            ]
            self._report(problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if not getattr(problem, "retriable", False) or _has_died(producer):
                await self._close(producer)  # fenced, out of sequence, closed: a new one may go on
        if reason is not None:
            raise Unsendable(refused, reason)

    async def _alone(
        self, producer: AIOKafkaProducer, waiting: Sequence[tuple[int, Sendable]], places: Sequence[int]
    ) -> list[int]:
        """The places whose records are too large by themselves: a broker refuses the whole batch of one partition."""
        large = []
        for place in places:
            [problem] = await self._send(producer, [waiting[place][1]])
            while problem is not None and not isinstance(problem, MessageSizeTooLargeError):
                await asyncio.sleep(FIRST_PAUSE)
                [problem] = await self._send(await self._open_patiently(), [waiting[place][1]])
            if problem is not None:
                large.append(place)
        return large

    async def _send(
        self, producer: AIOKafkaProducer, records: Sequence[Sendable]
    ) -> list[BaseException | None]:
        """Send once; what became of each record, None where it arrived."""
        sent: list[asyncio.Future[object] | BaseException] = []
        for topic, key, value, headers in records:
            try:
                sent.append(await producer.send(topic, value, key, headers=list(headers)))
            except (KafkaError, AssertionError) as problem:  # an assertion: its partition is unknown just now
                sent.append(problem)
        waited = [one for one in sent if not isinstance(one, BaseException)]
        if waited:
            await asyncio.wait(waited)
        return [one if isinstance(one, BaseException) else one.exception() for one in sent]

    async def _open_patiently(self) -> AIOKafkaProducer:
        pause = FIRST_PAUSE
        async with self._opening:
            while self._producer is None:
                try:
                    self._producer = await self._open()
                except (KafkaError, OSError) as problem:
                    self._report(problem)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
            return self._producer

    async def _open(self) -> AIOKafkaProducer:
        ask_without_creating()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap.split(","),
            acks="all",
            enable_idempotence=self._idempotent is not False,
            linger_ms=0,  # one `publish` is queued whole before the sender runs
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            metadata_max_age_ms=10_000,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            with _unheard() if self._idempotent is None else contextlib.nullcontext():
                await producer.start()
        except BaseException as problem:
            with contextlib.suppress(Exception):
                await producer.stop()
            if self._idempotent is None and isinstance(problem, UnknownError):
                self._idempotent = False
                return await self._open()
            raise
        if self._idempotent is None:
            self._idempotent = True
        return producer

    async def _close(self, producer: AIOKafkaProducer) -> None:
        current = self._producer is producer
        if current:  # else somebody has closed it already
            self._producer = None
            with contextlib.suppress(Exception):  # it is thrown away
                await asyncio.wait_for(producer.stop(), STOP_WITHIN)

    def _report(self, problem: BaseException | None) -> None:
        """Say once that publishing waits, and once that it goes on."""
        if problem is not None and not self._reported:
            log.warning("cannot publish to %s, trying again: %r", self._bootstrap, problem)
        elif problem is None and self._reported:
            log.info("publishing to %s again", self._bootstrap)
        self._reported = problem is not None


def _has_died(producer: AIOKafkaProducer) -> bool:
    """Whether a task has ended without which the producer waits forever."""
    tasks = (producer.client._sync_task, producer._sender.sender_task)
    return any(task is not None and task.done() for task in tasks)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep aiokafka from logging an error where the embedded broker merely has no idempotence."""
    sender = logging.getLogger("aiokafka.producer.sender")
    sender.disabled, before = True, sender.disabled
    try:
        yield
    finally:
        sender.disabled = before
