"""The agent: one guarded pipeline on Kafka, in its own process.

What waits in all partitions becomes one batch. It goes through the guard in executor threads, is published,
and only then acknowledged, in order. While a batch is committed and published the next is scored already; a small
one, with nothing before it under way, is scored where it is committed, which saves it a change of threads. A crash
anywhere between leads to a redelivery, which changes nothing and publishes again.

Two checks tie the batch to the world: the topic must still live the life that the marks belong to (asked after the
batch was fetched and before its effects), and the store must stand where this owner's reading does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from streams.guard import Guard, Item, Out, Pipeline
from streams.heartbeat import EVERY, Heartbeat
from streams.metrics import Metrics
from streams.outbox import Outbox, record_of
from streams.pipelines import PIPELINES, kinds
from streams.publisher import Publisher, Unsendable
from streams.runs import Run
from streams.settings import Settings
from streams.state.store import Store, Unavailable
from streams.transport import TP, Intake

log = logging.getLogger("tapewatch.agent")

IN_FLIGHT = (
    2  # batches that are committed or published while the next is scored; one more where it is judged too
)
SMALL = 16  # records of a batch that is scored and committed in one go, about 50 ms of a small model
SMALL_JUDGED = (
    64  # where it is judged after its effects: each change of threads costs a batch more than it gains
)
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries on a store that is away
CONFIRM_WITHIN = 1.0  # seconds that a thread waits for the broker to tell the lives of the topics
FINISH_WITHIN = 2.0  # seconds

T = TypeVar("T")


class StartAgain(Exception):
    """This process's view of broker or store is out of date; a fresh start puts it right. Nobody's fault."""


class Agent:
    """Runs one pipeline over an Intake (the transport's side) and a Publisher."""

    def __init__(
        self,
        name: str,
        pipeline: Pipeline[Any],
        settings: Settings,
        store: Store,
        publisher: Publisher,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.settings = settings
        self._pipeline = pipeline
        self._guard = Guard(pipeline, store, kinds(name, settings))
        self._store = store
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._beating = ThreadPoolExecutor(1, thread_name_prefix="beat")
        self._stopping = False
        self._lives: dict[str, str] = {}
        self._tail: asyncio.Task[None] | None = None
        self._decided: asyncio.Event | None = None  # set when the last batch has its effects
        self._slots = asyncio.Semaphore(IN_FLIGHT + self._guard.judges)
        self._draining = asyncio.Lock()
        self._away_since: float | None = None
        self._intake: Intake | None = None
        self.failure: Exception | None = None
        self._failed = asyncio.Event()
        self._heartbeat = Heartbeat(name, pipeline, store, metrics, clock())
        self._outbox = Outbox(name, store)

    def bind(self, intake: Intake) -> None:
        """The transport's side: tells assignments and lives."""
        self._intake = intake

    # What the transport calls

    async def start_offsets(self, committed: Mapping[TP, int | None]) -> dict[TP, int]:
        """Where to start reading each newly assigned partition: where broker *and* store stand.

        The store may stand before the commit (it lost its last second) or know nothing of this life of the topic (it
        is new, or the topic is): then from there, or from the beginning. It may stand after the commit (a crash came
        between): then from the commit, because the publishing may be missing.
        """
        marks: dict[str, dict[int, int]] = {}
        for topic in {tp.topic for tp in committed}:
            life = await self._life(topic)
            self._lives[topic] = life
            marks[topic] = await self._patiently(partial(self._store.marks, topic, life))
        starts = {}
        for tp, offset in committed.items():
            mark = marks[tp.topic].get(tp.partition)
            starts[tp] = 0 if mark is None or offset is None else min(offset, mark + 1)
        return starts

    async def handle(self, runs: Sequence[Run]) -> None:
        """Take one batch on; returns when it is scored, while its effects and publications go on in order.

        When the agent has failed it never returns: `run` then ends, and the process with it.
        """
        try:
            await self._take(runs)
        except Exception as error:
            self._fail(error)
            await asyncio.Event().wait()

    async def run(self) -> None:
        """Beside the app: the pipeline's timers, its outbox, the heartbeat; ends when the agent has failed."""
        while not self._failed.is_set():
            try:
                await self._tick()
            except Exception as error:
                self._fail(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._failed.wait(), EVERY)

    async def _take(self, runs: Sequence[Run]) -> None:
        await self._slots.acquire()
        began = time.perf_counter()
        items = self._items(runs)
        confirmed = asyncio.create_task(self._confirm({run.topic for run in runs}))
        confirmed.add_done_callback(
            lambda task: task.cancelled() or task.exception()
        )  # `_finish` may end before
        self._raise_if_failed()
        now, outs = self._clock(), None
        small = SMALL_JUDGED if self._guard.judges else SMALL
        if len(items) <= small and (self._tail is None or self._tail.done()):
            outs = await self._patiently(self._at_once(items, confirmed, now, began))
        else:
            await self._patiently(partial(self._guard.prepare, items, now), self._scoring)
            self._metrics.stage(self.name, "score", time.perf_counter() - began)
        before, self._decided = (self._tail, self._decided), asyncio.Event()
        self._tail = asyncio.create_task(
            self._finish(items, runs, confirmed, before, self._decided, now, began, outs)
        )
        self._tail.add_done_callback(_seen)  # `_fail` has noted it

    async def _tick(self) -> None:
        owned = self._owned()
        try:
            now = self._clock()
            beat = self._heartbeat.beat(self._intake, self._away_since, now)
            await self._in(self._beating, partial(self._heartbeat.send, beat, now))
            await self._in(self._storing, partial(self._pipeline.tick, self._store, owned, now))
            await self._drain({partition for found in owned.values() for partition in found})
        except Unavailable as error:
            self._note_away(error)

    async def finish_batches(self) -> None:
        """Wait a moment for the batches under way; what is not acknowledged by then comes again."""
        if self._tail is not None:
            await asyncio.wait([self._tail], timeout=FINISH_WITHIN)
            self._tail.cancel()

    async def finish(self) -> None:
        """The end: batches under way, publisher. No new work begins; `close` waits for the old."""
        await self.finish_batches()
        self._stopping = True
        for executor in (self._scoring, self._storing, self._beating):
            executor.shutdown(wait=False, cancel_futures=True)
        await self._publisher.stop()

    def close(self) -> None:
        """After `finish` and the event loop: wait for what a thread has in hand, then close pipeline and store."""
        for executor in (self._scoring, self._storing, self._beating):
            executor.shutdown(wait=True, cancel_futures=True)
        self._pipeline.close()
        self._store.close()

    def _fail(self, error: Exception) -> None:
        if self.failure is None and not self._stopping:
            self.failure = error
            self._failed.set()

    # One batch

    def _items(self, runs: Sequence[Run]) -> list[Item]:
        items = []
        for run in runs:
            life = self._lives[run.topic]
            previous = run.after - 1  # not the last that we took: a run between may never have come to us
            for record in run.records:
                raw = record.value or b""
                items.append(Item(run.topic, life, run.partition, record.offset, record.key, raw, previous))
                previous = record.offset
        return items

    async def _finish(
        self,
        items: list[Item],
        runs: Sequence[Run],
        confirmed: asyncio.Task[None],
        before: tuple[asyncio.Task[None] | None, asyncio.Event | None],
        decided: asyncio.Event,
        now: float,
        began: float,
        outs: list[Out] | None,
    ) -> None:
        """Effects in order, publications in order; while a batch is published the next has its effects.

        `outs` are given where the batch has its effects already.
        """
        published_before, decided_before = before
        try:
            if decided_before is not None:
                await decided_before.wait()
            self._raise_if_failed()
            await confirmed
            if outs is None:
                outs = await self._effects(items, now, decided)
            decided.set()
            if published_before is not None:
                await published_before
            published = time.perf_counter()
            if self._guard.judges:
                await asyncio.gather(
                    self._publish(outs),
                    self._patiently(partial(self._guard.keep, items, now), self._storing),
                )
            else:
                await self._publish(outs)
            await self._drain({run.partition for run in runs})
            for run in runs:
                run.ack()
            ended = time.perf_counter()
            self._metrics.stage(self.name, "publish", ended - published)
            self._heartbeat.note(len(items), ended - began)
        except Exception as error:
            self._fail(error)
            raise  # so that no later batch overtakes this one
        finally:
            decided.set()
            self._slots.release()

    async def _effects(self, items: list[Item], now: float, decided: asyncio.Event) -> list[Out]:
        """Effects, verdicts, and what is to be published (dead letters take long to make): not on the event loop.

        Where it is judged after its effects, the next batch may have its own meanwhile: one thread judges, in order.
        """
        if not self._guard.judges:
            return await self._patiently(partial(self._commit_and_judge, items, now))
        await self._patiently(partial(self._commit, items, now))
        decided.set()
        return await self._patiently(partial(self._judge, items, now), self._scoring)

    def _commit_and_judge(self, items: list[Item], now: float) -> list[Out]:
        self._commit(items, now)
        return self._judge(items, now)

    def _commit(self, items: list[Item], now: float) -> None:
        began = time.perf_counter()
        self._guard.commit(items, now)
        self._metrics.stage(self.name, "store", time.perf_counter() - began)

    def _judge(self, items: list[Item], now: float) -> list[Out]:
        if self._guard.judges:
            began = time.perf_counter()
            self._guard.judge(items, now)
            self._metrics.stage(self.name, "judge", time.perf_counter() - began)
        return self._guard.outputs(items, now)

    def _at_once(
        self, items: list[Item], confirmed: asyncio.Task[None], now: float, began: float
    ) -> Callable[[], list[Out] | None]:
        """Score and commit in one go; after a pause of the store it goes on where it stopped.

        None where the broker does not answer soon: the thread is needed for timers, and must not hold a stop up;
        `_finish` waits on and commits.
        """
        gate = _as_future(confirmed)
        scored = committed = False

        def work() -> list[Out] | None:
            nonlocal scored, committed
            if not scored:
                self._guard.prepare(items, now)
                self._metrics.stage(self.name, "score", time.perf_counter() - began)
                scored = True
            try:
                gate.result(CONFIRM_WITHIN)
            except TimeoutError:
                return None
            if not committed:
                self._commit(items, now)
                committed = True
            return self._judge(items, now)

        return work

    def _raise_if_failed(self) -> None:
        """Keep a batch from having effects after the one before it failed."""
        if self.failure is not None:
            raise self.failure

    async def _publish(self, outs: Sequence[Out]) -> None:
        """Publish; a dead letter that the broker finds too large is cut until it fits, its headers kept."""
        waiting = list(outs)
        while waiting:
            try:
                await self._publisher.publish(waiting)
                return
            except Unsendable as error:
                refused = [waiting[index] for index in error.records]
                cut = [_cut(out) for out in refused if _can_be_cut(out)]
                for out in refused:
                    if not _can_be_cut(out):
                        log.error("%s: a record for %s cannot be published: %s", self.name, out.topic, error)
                waiting = cut

    async def _drain(self, partitions: Collection[int]) -> None:
        """Publish what the store still holds for these partitions, oldest first, then let it go."""
        if not PIPELINES[self.name].outbox or not partitions:
            return
        owned = sorted(partitions)
        async with self._draining:  # the ticks and the batches drain the same lists
            while entries := await self._patiently(partial(self._outbox.read, owned)):
                await self._publish([record_of(entry) for _, entry in entries])
                await self._patiently(partial(self._outbox.forget, entries))

    # The world outside

    async def _life(self, topic: str) -> str:
        assert self._intake is not None
        pause = FIRST_PAUSE
        while True:
            try:
                life = await self._intake.topic_id(topic)
            except KafkaError as error:
                log.debug("%s: the broker does not answer: %s", self.name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if life is None:
                raise StartAgain(f"topic {topic} is gone")
            return life

    async def _confirm(self, topics: set[str]) -> None:
        """Raise StartAgain unless each topic still lives the life that this worker's marks belong to."""
        for topic in topics:
            if await self._life(topic) != self._lives[topic]:
                raise StartAgain(f"topic {topic} was deleted and made again")

    async def _patiently(self, work: Callable[[], T], executor: ThreadPoolExecutor | None = None) -> T:
        """Do work that needs the store, again and again while that is away; the reading stops meanwhile."""
        pause = FIRST_PAUSE
        while True:
            try:
                result = await self._in(executor or self._storing, work)
            except Unavailable as error:
                self._note_away(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if self._away_since is not None:
                    log.info(
                        "%s: the store is back after %.0f s", self.name, self._clock() - self._away_since
                    )
                    self._away_since = None
                return result

    async def _in(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = self._clock()
            log.warning("%s: %s; waiting, nothing is dropped", self.name, error)

    def _owned(self) -> dict[str, list[int]]:
        owned: dict[str, list[int]] = defaultdict(list)
        for tp in self._intake.assigned() if self._intake else ():
            owned[tp.topic].append(tp.partition)
        return dict(owned)


def _seen(task: asyncio.Task[None]) -> None:
    """Take note of a task's exception, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()


def _as_future(task: asyncio.Task[None]) -> Future[None]:
    """A task's end as another thread can wait for it."""
    future: Future[None] = Future()

    def end(done: asyncio.Task[None]) -> None:
        if done.cancelled():
            future.cancel()
        elif (error := done.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(None)

    task.add_done_callback(end)
    return future


def _can_be_cut(out: Out) -> bool:
    return out.topic.endswith(".dlq") and bool(out.value or out.key)


def _cut(out: Out) -> Out:
    return out._replace(
        key=(out.key or b"")[: len(out.key or b"") // 4], value=out.value[: len(out.value) // 4]
    )
