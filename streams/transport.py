"""Kafka to agents in batches, on Faust's extension points: the only file that knows Faust's inside.

Stock Faust pays four asyncio tasks for each record. Here each fetched run of a partition travels through
Faust as one event. Its commit rule is replaced too: stock Faust commits past records that nobody processed
when acknowledgements come out of order (issue 606), when it skips events while the flow is stopped, and at
gaps in the offsets. Ours commits, per partition, the end of the acknowledged prefix of what was delivered,
nothing else (`runs.Progress`).

Read against faust-streaming 0.15.3, mode-streaming 0.7.1 and aiokafka 0.14.0 (pinned in pyproject.toml);
`tests/streams/test_transport.py` shows where stock Faust loses records and this does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import faust
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata
from aiokafka import TopicPartition as KafkaTP
from aiokafka.errors import IllegalStateError, KafkaError
from faust.app.base import BootStrategy
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.garbage import Collector
from streams.publisher import Publisher, Unsendable
from streams.runs import FetchedRecord, Inbox, Place, Progress, Run
from streams.topics import ask_without_creating, client_topic_ids

__all__ = ["TP", "Intake", "Publisher", "Run", "Unsendable", "consume", "make_app", "run"]

log = logging.getLogger("tapewatch.transport")
faust_log = logging.getLogger("faust.tapewatch")

FETCH_BYTES = 2 * 1024 * 1024  # of one partition in one fetch: above any record of a broker with defaults
FETCH_WAIT_MS = 500
RUNS_AHEAD = 4  # runs in Faust's own queue, beyond the inbox
SETTLE = 2.0  # seconds that a rebalance or a shutdown waits for runs that the handler has in its hands
COMMIT_WITHIN = 4.0  # seconds that one commit may take
SAY_AGAIN = 30.0
STOP_WITHIN = 6.0  # seconds for a clean shutdown, the last commit included
LIVENESS = 1.0  # seconds between two looks at the consumer's own tasks

StartOffsets = Callable[[Mapping[TP, int | None]], Awaitable[Mapping[TP, int]]]
OnPartitions = Callable[[set[TP]], Awaitable[None]]
Handler = Callable[[list[Run]], Awaitable[None]]


def make_app(
    name: str,
    *,
    bootstrap: str,
    group: str,
    max_batch_records: int,
    fetch_wait_ms: int | None = None,
    start_offsets: StartOffsets | None = None,
    on_assigned: OnPartitions | None = None,
    on_revoked: OnPartitions | None = None,
) -> faust.App:
    """A Faust app whose agent gets runs: pass it to `consume`, then to `run`.

    `max_batch_records` bounds one fetch, and so one run. `fetch_wait_ms`: how long the broker may hold a
    fetch; 10 for the embedded broker (it holds each one half that long, records or not), None for Kafka
    (half a second). `start_offsets` gets the committed offset (None: nothing) of each partition that was
    not ours before, and says where to start; partitions that it leaves out start at what is committed, else
    at the beginning of the log. It may take its time: nothing is read meanwhile. An exception of its own
    ends the worker. `on_assigned` gets the whole new assignment before reading starts, `on_revoked` what
    was taken away, after the last commit; both hold the rebalance up. No topic is created.
    """
    ask_without_creating()
    app = _App(
        group,
        broker=[f"aiokafka://{server.strip()}" for server in bootstrap.split(",")],
        broker_client_id=name,
        broker_max_poll_records=max_batch_records,
        broker_request_timeout=20.0,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_metadata_max_age_ms=10_000,
        datadir=tempfile.gettempdir(),  # nothing is written there: there are no tables
        reply_create_topic=False,
        store="memory://",
        stream_buffer_maxsize=RUNS_AHEAD,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    transport = Transport(app.conf.broker_consumer, app)
    transport.fetch_wait_ms = FETCH_WAIT_MS if fetch_wait_ms is None else fetch_wait_ms
    transport.start_offsets = start_offsets
    transport.on_assigned, transport.on_revoked = on_assigned, on_revoked
    app.transport = transport
    return app


def consume(app: faust.App, topics: Sequence[str], handler: Handler, max_records: int) -> None:
    """Register the app's one agent: `handler` gets what waits in all partitions as one list of runs.

    A list holds at most `max_records` records, or one single run. The next is read ahead while the handler
    works. The handler acknowledges each run, before it returns or later. An exception that leaves it ends
    the worker.
    """
    transport = cast("Transport", app.transport)
    transport.inbox = inbox = Inbox(max_records)

    @app.agent(app.topic(*topics, schema=_Untouched()), name=f"{app.conf.id}.runs", concurrency=1)
    async def pump(stream: Any) -> None:
        async for event in stream.noack().events():
            await inbox.put(event.value)

    async def handle() -> None:
        while True:
            runs = await inbox.take()
            cast("Consumer", app.consumer).handled.update(runs)
            await handler(runs)

    async def last_acknowledgements(*_: Any, **__: Any) -> None:
        await cast("Consumer", app.consumer).settle(SETTLE)

    app.task(handle)
    app.on_before_shutdown.connect(last_acknowledgements, weak=False)


def run(app: faust.App, *beside: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run the app, and coroutines beside it, until SIGTERM or SIGINT; returns the exit status. Blocks.

    0 after a signal: what the handler had was given two seconds to be acknowledged, and is committed. 1 when
    anything died: the app, the consumer's own tasks, a coroutine beside it; the reason was logged.

    Not on uvloop: there a write to a connection that has just died raises RuntimeError, which aiokafka 0.14 does
    not expect; its metadata task ends, and nothing is fetched or committed again. Batches gain nothing by it.
    """
    _quieten()
    with asyncio.Runner() as runner:
        return runner.run(_run(app, beside))


class Intake:
    """What an agent may ask of its app while that runs."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    def assigned(self) -> set[TP]:
        """The partitions that this worker reads now."""
        return set(self._consumer.progress)

    def committed(self, tp: TP) -> int | None:
        """What this worker has committed, or found committed when it started there; None: nothing."""
        progress = self._consumer.progress.get(tp)
        return progress.committed if progress is not None else None

    def highwater(self, tp: TP) -> int | None:
        """The end of the partition's log as of the last fetch; None before the first."""
        return self._consumer.highwater(tp) if tp in self._consumer.assignment() else None

    def lag(self) -> dict[TP, int]:
        """Records that are not done yet, of each partition whose end is known."""
        ends = {tp: (self.highwater(tp), progress) for tp, progress in self._consumer.progress.items()}
        return {
            tp: max(0, end - progress.position) for tp, (end, progress) in ends.items() if end is not None
        }

    async def topic_id(self, topic: str) -> str | None:
        """The id of the topic's present life, None where it does not exist. One round trip.

        Raises aiokafka's KafkaError when the broker is away.
        """
        thread = self._consumer.thread
        client = thread._ensure_consumer()._client
        found = await thread.in_thread(client_topic_ids(client, [topic]))
        return cast("str | None", found[topic])

    @property
    def _consumer(self) -> Consumer:
        return cast("Consumer", self._app.consumer)


class Consumer(driver.Consumer):
    """Delivers runs and commits by the strict rule. Its state belongs to the app's event loop."""

    logger = faust_log
    transport: Transport
    _thread: _ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress: dict[TP, Progress] = {}  # of each partition that was placed
        self.handled: set[Run] = set()  # in the handler's hands
        self._settled = asyncio.Event()  # set at each acknowledgement
        self._held: set[TP] = set()  # the last assignment
        self._stops = 0  # how often the flow was stopped
        self._misplaced = False  # fetched records were dropped: go back before delivering more
        self._collector = Collector()

    @property
    def thread(self) -> _ConsumerThread:
        """The thread that owns the aiokafka consumer."""
        return self._thread

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Reading

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        """Fetch once, and yield one message for the run of each partition.

        What is fetched and not delivered, because the flow stopped or a rebalance came between, is read
        again: delivered after a later seek it would put a hole into the acknowledged prefix.
        """
        if self._misplaced and self.flow_active:
            await self._seek_again()
        stops, generation = self._stops, self.app.consumer_generation_id
        records, active = await self._wait_next_records(timeout)
        for key, batch in (records or {}).items():
            tp = ensure_TP(key)
            current = stops == self._stops and generation == self.app.consumer_generation_id
            ours = tp in (active or ()) and tp in self.progress
            if self.should_stop or self._misplaced or not (current and ours):
                self._misplaced = True
                return
            yield tp, self._deliver(tp, batch)

    def _deliver(self, tp: TP, batch: Sequence[FetchedRecord]) -> ConsumerMessage:
        run = Run(tp.topic, tp.partition, batch, self._settled.set)
        self.progress[tp].deliver(run)
        self._read_offset[tp] = None  # Faust would drop what is below it
        last = batch[-1]
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=cast("bytes", run),
            checksum=None,
            serialized_value_size=0,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a full queue holds the fetcher back; stock Faust sleeps a second when all are full."""

    # Places

    async def perform_seek(self) -> None:
        """Read on from where all is done; ask `start_offsets` about partitions that were not ours before."""
        stops = self._stops
        self._drop_delivered()
        assigned = self.assignment()
        fresh = assigned - self.progress.keys()
        places = await self._choose_places(fresh) if fresh else {}
        offsets = {tp: self.progress[tp].rewind() for tp in assigned & self.progress.keys()}
        offsets |= {tp: place.offset for tp, place in places.items()}
        await self._thread.in_thread(self._thread.place(offsets))
        self.progress |= {tp: Progress(place) for tp, place in places.items()}
        self._misplaced = stops != self._stops

    async def _choose_places(self, fresh: set[TP]) -> dict[TP, Place]:
        known = await self._thread.in_thread(self._thread.committed_offsets(fresh))
        choose = self.transport.start_offsets
        chosen = dict(await choose(known)) if choose is not None else {}
        starts = {tp: chosen.get(tp, known[tp]) for tp in fresh}
        missing = {tp for tp, offset in starts.items() if offset is None}
        starts |= await self._thread.in_thread(self._thread.beginnings(missing))
        return {tp: Place(offset, known[tp]) for tp, offset in starts.items()}

    async def _seek_again(self) -> None:
        try:
            await self.perform_seek()
        except (KafkaError, IllegalStateError) as problem:  # the broker is away, or a rebalance is under way
            log.warning("cannot go back to what is not done, trying again: %r", problem)
            await self.sleep(0.5)

    def stop_flow(self) -> None:
        """Deliver no more; what is on its way will be read again."""
        self._stops += 1
        self._misplaced = True
        super().stop_flow()

    def _drop_delivered(self) -> None:
        self.handled.clear()
        self.transport.inbox.clear()
        self.app.flow_control.clear()  # Faust's own queue

    # Acknowledging and committing

    def ack(self, message: Any) -> bool:  # noqa: ARG002 - Faust's signature
        """Nothing: Faust acknowledges events that it skips. Only `Run.ack` counts."""
        return False

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: a gap needs no acknowledgement (stock Faust counts its end as acknowledged)."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self.progress) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        progress = self.progress.get(tp)
        return progress.committable() if progress is not None else None

    def _should_commit(self, tp: TP, offset: int) -> bool:  # noqa: ARG002 - Faust's signature
        return True  # `_new_offset` has decided; a smaller offset is right when the log began anew

    async def _commit_offsets(
        self,
        offsets: Mapping[TP, int],
        start_new_transaction: bool = True,  # noqa: ARG002 - Faust's signature
    ) -> bool:
        """Commit; unlike in stock Faust, what the broker refused stays to be committed."""
        owned = {tp: end for tp, end in offsets.items() if tp in self.assignment()}
        if not owned or not await self._commit(owned):
            return False
        for tp, end in owned.items():
            if tp in self.progress:
                self.progress[tp].committed = end
        return True

    async def settle(self, seconds: float) -> None:
        """Give the handler time to acknowledge what it has in its hands; it gets no more."""
        for progress in self.progress.values():
            progress.give_up(self.handled)
        self.transport.inbox.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(not run.acknowledged for run in self.handled):
                    self._settled.clear()
                    await self._settled.wait()

    @faust.Service.task
    async def _watch(self) -> None:
        async for _ in self.itertimer(LIVENESS, name="liveness"):
            self.handled = {run for run in self.handled if not run.acknowledged}
            self._collector.look(idle=not self.handled)
            if (dead := self._thread.dead()) and not self.app.should_stop:
                await self.crash(RuntimeError(f"the Kafka consumer's task for {dead} has ended"))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's guesses at slow streams do not know of runs."""

    # Rebalances: aiokafka takes all partitions away, then gives the new ones

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop, let the handler finish, commit, and only then let the partitions go."""
        if revoked:
            self.stop_flow()
            await self.settle(SETTLE)
            await self.commit()
        await super().on_partitions_revoked(revoked)
        if revoked and self.transport.on_revoked is not None:
            await self.transport.on_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Partitions that we did not hold until now will be placed anew; nothing is delivered before.

        (After an empty assignment Faust does not stop the flow, and would read before it has a place.)
        """
        self.stop_flow()
        for tp in self.progress.keys() - (assigned & self._held):
            self.progress.pop(tp).rewind()
        self._held = set(assigned)
        if self.transport.on_assigned is not None:
            await self.transport.on_assigned(assigned)
        await super().on_partitions_assigned(assigned, generation_id)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    logger = faust_log

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = cast("Transport", transport).fetch_wait_ms  # Faust fixes it at 1500
        return consumer

    async def on_start(self) -> None:
        """Start aiokafka's consumer."""
        await super().on_start()
        self._ensure_consumer()._fetcher._records = _AsDecoded()  # before it subscribes

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Nothing: Faust prints a traceback; `run` tells the reason."""

    async def in_thread(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the consumer's loop, not queued behind a fetch."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.thread_loop))

    async def committed_offsets(self, tps: set[TP]) -> dict[TP, int | None]:
        """What the group has committed, None where it has nothing."""
        consumer = self._ensure_consumer()
        found = await asyncio.gather(*(consumer.committed(KafkaTP(*tp)) for tp in tps))
        return dict(zip(tps, found, strict=True))

    async def beginnings(self, tps: set[TP]) -> dict[TP, int]:
        """The first offset that each log still has."""
        found = await self._ensure_consumer().beginning_offsets([KafkaTP(*tp) for tp in tps]) if tps else {}
        return {ensure_TP(tp): offset for tp, offset in found.items()}

    async def place(self, offsets: Mapping[TP, int]) -> None:
        """Read on from these offsets."""
        for tp, offset in offsets.items():
            self._ensure_consumer().seek(KafkaTP(*tp), offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit. A failure is logged, and tried again with the next commit; stock Faust ends the worker."""
        wanted = {KafkaTP(*tp): OffsetAndMetadata(end, "") for tp, end in offsets.items()}
        try:
            async with asyncio.timeout(COMMIT_WITHIN):  # aiokafka tries for as long as the broker is away
                await self._ensure_consumer().commit(wanted)
        except (KafkaError, IllegalStateError, TimeoutError) as problem:
            log.info("not committed yet, these records may come again: %r", problem)
            return False
        return True

    def dead(self) -> str:
        """Which of the consumer's own tasks has ended; an empty string while all live."""
        consumer = self._consumer
        if consumer is None or consumer._closed:
            return ""
        tasks = {
            "group membership": getattr(consumer._coordinator, "_coordination_task", None),
            "fetching": getattr(consumer._fetcher, "_fetch_task", None),
            "metadata": getattr(consumer._client, "_sync_task", None),
        }
        return ", ".join(name for name, task in tasks.items() if task is not None and task.done())


class _AsDecoded(OrderedDict[KafkaTP, Any]):
    """What aiokafka has fetched, its records left as the decoder made them.

    aiokafka copies each into a ConsumerRecord of eleven fields: two thirds of what reading a record costs.
    """

    def __setitem__(self, tp: KafkaTP, fetched: Any) -> None:
        records = getattr(fetched, "_partition_records", None)
        if records is not None:
            records._consumer_record = _as_decoded
        super().__setitem__(tp, fetched)


def _as_decoded(_: KafkaTP, record: FetchedRecord) -> FetchedRecord:
    return record


class Transport(driver.Transport):
    """What an app's consumer needs beyond Faust's settings."""

    Consumer: ClassVar[type[Any]] = Consumer
    inbox: Inbox
    fetch_wait_ms = FETCH_WAIT_MS
    start_offsets: StartOffsets | None = None
    on_assigned: OnPartitions | None = None
    on_revoked: OnPartitions | None = None


class _Untouched(faust.Schema[Any, Any]):
    """Hands a run on as it is: decoding is the agent's, who can deal with malformed records."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return app.create_event(None, message.value, {}, message)

        return decode


class _Sparing(logging.Filter):
    """Lets a logger say the same thing once in half a minute: aiokafka says forty lines a second of a dead broker."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        said, self._last[key] = self._last.get(key), record.created
        if said is not None and record.created - said < SAY_AGAIN:
            self._last[key] = said
            return False
        return True


class _Boot(BootStrategy):
    """No web server, and no producer: `streams.publisher` has its own."""

    enable_web = False
    enable_kafka_producer = False


class _App(faust.App):
    logger = faust_log
    BootStrategy = _Boot

    async def _producer_flush(self, logger: Any) -> None:
        """Nothing: there is no producer."""


def _quieten() -> None:
    """Keep the libraries to what an operator can use; a crash's reason is told once, by `_run`."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return
    for name in ("faust", "mode", "aiokafka"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    for name in ("mode", "faust.tapewatch"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sparing = _Sparing()
    for module in (
        "",
        ".conn",
        ".cluster",
        ".consumer.fetcher",
        ".consumer.group_coordinator",
        ".producer.sender",
    ):
        logging.getLogger(f"aiokafka{module}").addFilter(sparing)
    threading.excepthook = lambda crash: log.debug("thread %s: %r", crash.thread, crash.exc_value)


async def _run(app: faust.App, beside: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ends = [
        asyncio.create_task(stopping.wait()),
        asyncio.create_task(app._crashed.wait()),
        *(asyncio.create_task(work()) for work in beside),
    ]
    starting = asyncio.create_task(app.start())
    await asyncio.wait([*ends, starting], return_when=asyncio.FIRST_COMPLETED)
    problem: BaseException | None = None
    if starting.done() and not (problem := starting.exception()):
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in ends[2:]:
        problem = problem or (task.exception() if task.done() and not task.cancelled() else None)
        task.cancel()
    try:
        async with asyncio.timeout(STOP_WITHIN):
            await app.stop()
    except TimeoutError:
        log.warning("the app did not stop within %.0f s", STOP_WITHIN)
    problem = problem or app.crash_reason
    if problem is not None:
        expected = isinstance(problem, KafkaError)
        log.error("the worker ends: %r", problem, exc_info=None if expected else problem)
    return 0 if problem is None and stopping.is_set() else 1
