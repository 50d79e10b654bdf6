"""The guard around every pipeline: decode, score, commit, judge, derive; and what becomes of a record that fails.

This is the synchronous core, the same for a worker on Kafka (`streams/agent.py`) and for a file (`tapewatch
score`). It knows nothing of Kafka. Exceptions are named by their consequence: `Malformed` and whatever the
pipeline raises about one record end in a dead letter, `Unavailable` slows down, `LostPlace` reads again,
`TooManyFailures` stops the worker.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from streams import records
from streams.records import MAX_RECORD, Malformed, Record
from streams.state.store import Refused, Store, Unavailable, digest

log = logging.getLogger("tapewatch.guard")

ATTEMPTS = 3  # times that a record is tried alone before it is a dead letter of the model or the store
LAST = 1000  # the records over which the share of failures is watched
R = TypeVar("R", bound=Record)
R_contra = TypeVar("R_contra", bound=Record, contravariant=True)


class TooManyFailures(Exception):
    """Most of the last thousand records failed in the model or the store: bad code or a bad bundle, not bad data."""


class Out(NamedTuple):
    """A record to publish; the topic is a full name."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Prepared(NamedTuple):
    """What a pipeline made of one record: the effect for its Lua file, and what `derive` needs of it later."""

    effect: Any  # msgpack-able
    payload: Any = None
    outcome: str = "scored"  # or "filtered"
    digest: str = ""  # of the record's id, where the pipeline has made it
    time: int = 0  # of the record in ms, likewise


class Pipeline(Protocol[R_contra]):
    """What a pipeline is to the guard. Synchronous; called from one thread at a time.

    `prepare` may raise about any of its records: the batch is split until the culprit is alone. It may raise
    Unavailable when nothing is wrong with the records.
    """

    @property
    def name(self) -> str:
        """Its name in the table of pipelines."""

    @property
    def scripts(self) -> tuple[str, ...]:
        """Lua files under streams/state, the guard last."""

    @property
    def piece(self) -> int:
        """Records in one atomic step, so that it takes about 5 ms."""

    @property
    def batch(self) -> int:
        """Records at most in one call of `prepare`, so that it takes well under a second."""

    def prepare(self, batch: Sequence[R_contra], now: float) -> Sequence[Prepared]:
        """One Prepared a record, in order."""

    def settings(self) -> dict[str, Any]:
        """What the Lua file finds in `ctx.settings`; msgpack-able."""

    def derive(self, record: R_contra, prepared: Prepared, decision: Any, now: float) -> Iterable[Out]:
        """The records to publish for one record, from what the store decided about it."""

    def mask(self, raw: bytes) -> bytes:
        """The bytes of a dead letter, without what must not be kept."""

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """After the effects of a batch: what follows from them as a whole. Must bear being done again."""

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        """Every second, with the partitions of each source topic that this worker owns: timers."""

    def close(self) -> None:
        """Give back what was opened."""


@runtime_checkable
class Judging(Protocol):
    """What a pipeline has besides when its model needs what only the store knows: it scores after the effects.

    Called from the thread that calls `prepare`. All of it must bear being done again: after a crash, or when it
    raised Unavailable.
    """

    def claim(self, items: Sequence[Item], now: float) -> None:
        """After `prepare` of a batch: what its effects need of what was absorbed by now.

        Batches before it may still be under way to the store, so that this is out of date where they overlap.
        """

    def absorb(self, items: Sequence[Item], now: float) -> None:
        """Take in what the store decided about a batch, in order. May raise Unavailable, nothing about one record."""

    def judge(self, items: Sequence[Item], now: float) -> Sequence[Any]:
        """A verdict for each of these items, in order; `derive` gets it as the decision.

        May raise about any of its records, as `prepare` may.
        """

    def keep(self, store: Store, items: Sequence[Item], now: float) -> None:
        """What is remembered of a judged batch; before it is acknowledged. Raises Unavailable."""


@dataclass(slots=True)
class Dead:
    """Why a record is a dead letter."""

    stage: str  # decode, model or store
    error: str
    attempts: int = 1


@dataclass(slots=True)
class Item:
    """One record on its way through the guard."""

    topic: str
    life: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes
    previous: int | None = None  # all offsets up to this one were read before it
    record: Any = None
    prepared: Prepared | None = None
    dead: Dead | None = None
    status: str = ""  # new, again, duplicate, dead
    decision: Any = None
    reply: bytes = b""  # what the decision points into


@dataclass
class Guard(Generic[R]):
    """Takes the items of a batch through one pipeline. The kinds of its source topics are given by full topic name."""

    pipeline: Pipeline[R]
    store: Store
    kinds: Mapping[str, type[Record]]
    _failures: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST))
    judges: bool = field(init=False)  # whether the pipeline scores after the effects

    def __post_init__(self) -> None:
        self.judges = isinstance(self.pipeline, Judging)

    def prepare(self, items: Sequence[Item], now: float) -> None:
        """Decode and score: every item then has either `prepared` or `dead`.

        Raises Unavailable, and TooManyFailures before anything of the batch was done.
        """
        good: list[Item] = []
        for item in items:
            try:
                item.record = records.decode(self.kinds[item.topic], item.raw, now)
                good.append(item)
            except Malformed as error:
                item.dead = Dead("decode", str(error))
        for start in range(0, len(good), self.pipeline.batch):
            self._score(good[start : start + self.pipeline.batch], now)
        if isinstance(self.pipeline, Judging):
            self.pipeline.claim(good, now)
        for item in good:
            if item.dead is not None and item.dead.stage != "decode":
                self._note(True)

    def commit(self, items: Sequence[Item], now: float) -> None:
        """Effects and marks in the store; every item then has a status.

        Raises Unavailable, LostPlace, TooManyFailures.
        """
        for (topic, life), group in groupby(items, key=lambda item: (item.topic, item.life)):
            self._commit(topic, life, list(group), now)
        for item in items:
            if item.dead is None and not (self.judges and item.status in ("new", "again")):
                self._note(False)
        self.pipeline.settle(self.store, items, now)

    def judge(self, items: Sequence[Item], now: float) -> None:
        """After the effects: score what could not be scored before. A record that fails ends in a dead letter still.

        Raises Unavailable, TooManyFailures.
        """
        pipeline = self.pipeline
        if not isinstance(pipeline, Judging):
            return
        done = [item for item in items if item.status in ("new", "again")]
        pipeline.absorb(done, now)
        waiting = [item for item in done if item.prepared and item.prepared.outcome == "scored"]
        for start in range(0, len(waiting), self.pipeline.batch):
            self._judge(pipeline, waiting[start : start + self.pipeline.batch], now)
        for item in done:  # before they are condemned: a better bundle may judge them yet
            self._note(item.dead is not None)
        failed = [item for item in waiting if item.dead is not None]
        if failed:
            self._condemn(failed)

    def keep(self, items: Sequence[Item], now: float) -> None:
        """Remember what was judged. Raises Unavailable."""
        if isinstance(self.pipeline, Judging):
            judged = [item for item in items if item.status in ("new", "again")]
            self.pipeline.keep(self.store, judged, now)

    def outputs(self, items: Sequence[Item], now: float) -> list[Out]:
        """What is to be published for these items, in their order."""
        found: list[Out] = []
        for item in items:
            if item.status == "dead":
                found.append(self._dead_letter(item, now))
            elif item.status in ("new", "again") and item.prepared and item.prepared.outcome == "scored":
                found.extend(self.pipeline.derive(item.record, item.prepared, item.decision, now))
        return found

    def _score(self, items: Sequence[Item], now: float) -> None:
        def prepare(part: Sequence[Item]) -> None:
            made = self.pipeline.prepare([item.record for item in part], now)
            for item, prepared in zip(part, made, strict=True):
                item.prepared = prepared

        self._bisect(items, prepare)

    def _judge(self, pipeline: Judging, items: Sequence[Item], now: float) -> None:
        def judge(part: Sequence[Item]) -> None:
            for item, verdict in zip(part, pipeline.judge(part, now), strict=True):
                item.decision = verdict

        self._bisect(items, judge)

    def _bisect(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], None], attempts: int = 1
    ) -> None:
        """Halve a batch whose work raises until the record that makes it raise is alone."""
        if not items:
            return
        try:
            work(items)
        except Unavailable:
            raise
        except Exception as error:
            if len(items) == 1 and isinstance(error, Malformed):
                items[0].dead = Dead("decode", str(error))
            elif len(items) == 1 and attempts < ATTEMPTS:
                self._bisect(items, work, attempts + 1)
            elif len(items) == 1:
                items[0].dead = Dead("model", _one_line(error), attempts)
                log.warning(
                    "%s: record %r failed in the model: %s", self.pipeline.name, items[0].record.id, error
                )
            else:
                middle = len(items) // 2
                self._bisect(items[:middle], work)
                self._bisect(items[middle:], work)

    def _condemn(self, items: Sequence[Item]) -> None:
        """Records that failed after their effects are counted as dead letters instead, once."""
        for (topic, life), group in groupby(items, key=lambda item: (item.topic, item.life)):
            entries = [
                (
                    f"{item.partition}:{item.offset}",
                    item.prepared.outcome if item.prepared else "scored",
                    item.dead.error[:300] if item.dead else "",
                )
                for item in group
            ]
            keys = self.store.keys
            self.store.run(
                ("condemn",),
                [keys.marks(topic, life), keys.seen(topic, life), keys.outcomes(self.pipeline.name)],
                entries,
            )
        for item in items:
            item.status = "dead"

    def _commit(self, topic: str, life: str, items: list[Item], now: float) -> None:
        pieces = [
            items[start : start + self.pipeline.piece] for start in range(0, len(items), self.pipeline.piece)
        ]
        try:
            self._send(topic, life, pieces, now)
            return
        except Refused:
            pass  # somewhere in here: record by record, so that it is known where
        for item in items:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._send(topic, life, [[item]], now)
                    break
                except Refused as error:
                    if item.dead is not None:
                        raise  # not even its dead letter can be counted: the script itself is broken
                    if attempt == ATTEMPTS:
                        item.dead = Dead("store", _one_line(error), attempt)
            if item.dead is not None and item.dead.stage == "store":
                where = f"{item.topic}:{item.partition}:{item.offset}"
                log.warning(
                    "%s: record at %s failed in the store: %s", self.pipeline.name, where, item.dead.error
                )
                self._note(True)
                self._send(topic, life, [[item]], now)

    def _send(self, topic: str, life: str, pieces: Sequence[Sequence[Item]], now: float) -> None:
        replies = self.store.commit(
            self.pipeline.scripts,
            pipeline=self.pipeline.name,
            topic=topic,
            life=life,
            pieces=[[_step(item) for item in piece] for piece in pieces],
            now=now,
            settings=self.pipeline.settings(),
        )
        for item, (status, decision, reply) in zip(
            (item for piece in pieces for item in piece), replies, strict=True
        ):
            item.status, item.decision, item.reply = status, decision, reply

    def _note(self, failed: bool) -> None:
        self._failures.append(failed)
        count = sum(self._failures) if failed else 0
        if count > LAST // 2:
            raise TooManyFailures(
                f"{count} of the last {len(self._failures)} records of {self.pipeline.name} "
                "failed in the model or the store"
            )

    def _dead_letter(self, item: Item, now: float) -> Out:
        dead = item.dead
        if dead is None and isinstance(item.decision, str) and item.decision != "1":
            dead = Dead("model", item.decision)  # it was condemned when it was first read
        dead = dead or Dead("decode", "it was found malformed when it was first read")
        headers = {
            "dlq.topic": item.topic,
            "dlq.partition": str(item.partition),
            "dlq.offset": str(item.offset),
            "dlq.stage": dead.stage,
            "dlq.error": dead.error[:1000],
            "dlq.at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "dlq.attempts": str(dead.attempts),
        }
        kept = self.pipeline.mask(item.raw[:MAX_RECORD])
        pairs = tuple((name, value.encode("utf-8", "replace")) for name, value in headers.items())
        return Out(f"{item.topic}.dlq", item.key, kept, pairs)


def _step(item: Item) -> dict[str, Any]:
    prepared = item.prepared
    if item.dead is not None or prepared is None:
        step: dict[str, Any] = {"p": item.partition, "o": item.offset, "k": "dead_letter"}
    else:
        step = {
            "p": item.partition,
            "o": item.offset,
            "k": prepared.outcome,
            "d": prepared.digest or digest(item.record.id),
            "ts": prepared.time or records.milliseconds(item.record.ts),
            "e": prepared.effect,
        }
    if item.previous is not None:
        step["prev"] = item.previous
    return step


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
