"""Alerts: signals say which entities to look at, the store's windows say whether they surge, alerts follow.

Nothing depends on the order in which signals arrive: a window is what the store holds about it once a batch is
counted, so a redelivered signal finds what it led to. An alert changes by compare-and-set on its version
(`transition.lua`), which writes the record to publish with it. What is watched and by which rule says `watches.py`:
by a signal an alert fires on the open minute, by the timer it resolves on closed ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.client import Pipeline as Pipe

from streams import incidents, records
from streams.guard import Item, Out, Prepared
from streams.incidents import Incident
from streams.records import Signal
from streams.settings import Settings
from streams.state.store import Store, as_text
from streams.watches import WATCHES
from streams.windows import surge, trend
from streams.windows.buckets import HOUR, MINUTE, SIZES, closed_until, start_of, watermark_of
from streams.windows.surge import WINDOW, Series

log = logging.getLogger("tapewatch.alerts")

KEPT = 1000  # resolved alerts, the newest
ROUNDS = 40  # looks at an entity in one go: an hour of back-dated headlines holds at most ten incidents
PERIODS = surge.MEMORY + HOUR  # how long an incident is kept out of what is usual
FEED = 100  # signals kept an entity
ENTITIES = 10_000  # entities of a kind that signals are kept of


class Moment(NamedTuple):
    """The newest signal about an entity in one minute: its time in ms, and the partition that it came from."""

    at: int
    partition: int


class Subject(NamedTuple):
    """What an alert is about."""

    kind: str
    entity: str

    @property
    def fingerprint(self) -> str:
        """The same for all alerts about it."""
        return incidents.fingerprint(self.kind, self.entity)


class Scene(NamedTuple):
    """All that one look at an entity found in the store."""

    subject: Subject
    incident: Incident | None  # the alert that is active
    series: Series
    feed: Sequence[bytes]


def open_pipeline(settings: Settings, store: Store, threads: int) -> Alerts:  # noqa: ARG001
    """The pipeline, for the table of pipelines."""
    return Alerts(settings, store)


class Alerts:
    """The alerts pipeline; `guard.Pipeline` says what each method is for."""

    name = "alerts"
    scripts: tuple[str, ...] = ("alerts", "guard")
    piece = 128
    batch = 1024

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._prefix = store.keys.prefix
        self._topic, self._signals = settings.topic("alerts"), settings.topic("signals")
        self._watermarks = {kind: settings.topic(watch.topic) for kind, watch in WATCHES.items()}
        minutes = SIZES["1m"]
        self._lua = {
            "width": minutes.width,
            "span": minutes.span,
            "slice": minutes.slice,
            "feed": FEED,
            "entities": ENTITIES,
        }
        self._ticked: object = None  # what the last tick judged by

    def prepare(self, batch: Sequence[Signal], now: float) -> list[Prepared]:
        """Signals that can raise an alert are `scored`, all others filtered."""
        made = []
        for signal in batch:
            watch = WATCHES.get(signal.kind)
            counts = watch is not None and watch.counts(signal, now)
            effect = watch.effect(signal, now) if watch is not None else None
            made.append(Prepared(effect or False, None, "scored" if counts else "filtered"))
        return made

    def settings(self) -> dict[str, Any]:
        """For alerts.lua."""
        return self._lua

    def derive(self, record: Signal, prepared: Prepared, decision: Any, now: float) -> Iterable[Out]:  # noqa: ARG002
        """No records of its own: transitions leave through the outbox."""
        return ()

    def mask(self, raw: bytes) -> bytes:
        """Signals hold nothing that must not be kept."""
        return raw

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """Judge every entity and minute that the batch touched, also by signals that came again."""
        touched: dict[Subject, dict[int, Moment]] = {}
        for item in done:
            if item.status in ("new", "again") and item.prepared and item.prepared.outcome == "scored":
                at = min(records.milliseconds(item.record.ts), int(now * 1000))
                moments = touched.setdefault(Subject(item.record.kind, item.record.entity), {})
                minute = start_of(at, MINUTE)
                moments[minute] = max(moments.get(minute, Moment(0, 0)), Moment(at, item.partition))
        if touched:
            hot = self._hot(store, touched)
            self._review(store, {subject: sorted(touched[subject].values()) for subject in hot}, now)

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        """Look again at the active alerts of the owned partitions, once a minute has closed or they have changed."""
        pipe = store.client.pipeline(transaction=False)
        pipe.hvals(store.keys.active())
        self._ask_watermarks(pipe, store)
        alerts, *watermarks = store.call(pipe.execute)
        partitions = tuple(sorted(owned.get(self._signals, ())))
        closed = self._closed(watermarks, now)
        minutes = tuple(start_of(until, MINUTE) for until in closed.values())
        seen = (minutes, tuple(sorted(alerts)), partitions)
        if seen == self._ticked:
            return
        for alert in alerts:
            pipe.hmget(store.keys.alert(as_text(alert)), "record", "partition")
        found = store.call(pipe.execute) if alerts else []
        active = [
            msgspec.json.decode(record, type=records.Alert)
            for record, partition in found
            if record and int(partition) in partitions
        ]
        mine = [Subject(record.kind, record.entity) for record in active if record.kind in WATCHES]
        self._review(store, {subject: [] for subject in mine}, now)
        self._ticked = seen

    def close(self) -> None:
        """Nothing was opened."""

    def _ask_watermarks(self, pipe: Pipe, store: Store) -> None:
        for topic in self._watermarks.values():
            pipe.hgetall(store.keys.watermark(topic))

    def _closed(self, watermarks: Sequence[Mapping[bytes, bytes]], now: float) -> dict[str, int]:
        """Until when the buckets of each kind are closed."""
        found = zip(self._watermarks, watermarks, strict=True)
        return {kind: _closed(watermark, now) for kind, watermark in found}

    def _hot(self, store: Store, touched: Mapping[Subject, Mapping[int, Moment]]) -> list[Subject]:
        """What is worth a close look: an alert is active, or some window has enough signals at all."""
        pipe = store.client.pipeline(transaction=False)
        pipe.hmget(store.keys.active(), [subject.fingerprint for subject in touched])
        windows = [(subject, minute) for subject in touched for minute in touched[subject]]
        asked = [
            WATCHES[subject.kind].ask(pipe, store.keys, subject.entity, *_window(minute))
            for subject, minute in windows
        ]
        active, *replies = store.call(pipe.execute)
        hot = {subject: None for subject, alert in zip(touched, active, strict=True) if alert}
        answers = iter(replies)
        for (subject, _), hashes in zip(windows, asked, strict=True):
            value = sum(int(count) for _ in range(hashes) for count in next(answers) if count)
            if value >= WATCHES[subject.kind].least:
                hot[subject] = None
        return list(hot)

    def _review(self, store: Store, touched: Mapping[Subject, Sequence[Moment]], now: float) -> None:
        """Look and act until no alert about these changes any more."""
        left = dict(touched)
        for _ in range(ROUNDS):
            if not left:
                return
            scenes, closed = self._look(store, left, now)
            again = [
                scene.subject for scene in scenes if self._act(store, scene, left, closed[scene.subject.kind])
            ]
            left = {subject: left[subject] for subject in again}
        names = ", ".join(subject.entity for subject in left)
        log.warning("alerts of %s still change after %d looks; the timer goes on", names, ROUNDS)

    def _look(
        self, store: Store, touched: Mapping[Subject, Sequence[Moment]], now: float
    ) -> tuple[list[Scene], dict[str, int]]:
        """What the store knows of these, the alerts first: a change since then loses the compare-and-set."""
        keys = store.keys
        pipe = store.client.pipeline(transaction=False)
        self._ask_watermarks(pipe, store)
        pipe.hmget(keys.active(), [subject.fingerprint for subject in touched])
        *watermarks, active = store.call(pipe.execute)
        closed = self._closed(watermarks, now)
        for (subject, moments), alert in zip(touched.items(), active, strict=True):
            pipe.hmget(keys.alert(as_text(alert or b"")), "record", "detail", "partition")
            first, last = (moments[0].at, moments[-1].at) if moments else (1, 0)
            feed = WATCHES[subject.kind].feed(keys, subject.entity)
            pipe.zrangebyscore(feed, _window(first)[0], last + MINUTE)
        found = store.call(pipe.execute)
        series: dict[Subject, Series] = {}
        for kind in {subject.kind for subject in touched}:
            these = {subject: moments for subject, moments in touched.items() if subject.kind == kind}
            until = max(
                [closed[kind], *(_window(moments[-1].at)[1] for moments in these.values() if moments)]
            )
            names = [subject.entity for subject in these]
            read = WATCHES[kind].series(store, names, until - 2 * surge.MEMORY, until, int(now * 1000))
            series |= {subject: read[subject.entity] for subject in these}
        scenes = [
            Scene(subject, _incident(found[2 * index]), series[subject], found[2 * index + 1])
            for index, subject in enumerate(touched)
        ]
        return scenes, closed

    def _act(
        self, store: Store, scene: Scene, touched: Mapping[Subject, Sequence[Moment]], closed: int
    ) -> bool:
        """Take the next step of one entity, if there is one; whether it needs another look."""
        subject, incident, series, feed = scene
        watch, moments = WATCHES[subject.kind], touched[subject]
        if incident is not None:
            cleared = watch.clears(series, incident.opened, closed)
            if cleared is not None:
                self._write(store, series, incidents.resolve(incident, cleared))
                return True
            for moment in moments:
                if moment.at >= incident.opened:
                    verdict = watch.judge(series, moment.at, closed)
                    cause = watch.cause(subject.entity, feed, *_window(moment.at))
                    incident = incidents.follow(incident, verdict, cause) or incident
            return incident != scene.incident and not self._write(store, series, incident, transition=False)
        for moment in moments:
            verdict = watch.judge(series, moment.at, closed)
            if verdict.fires:
                cause = watch.cause(subject.entity, feed, *_window(moment.at))
                fired = incidents.fire(subject.kind, subject.entity, *moment, verdict, cause, watch.words)
                self._write(store, series, fired)
                return True
        return False

    def _write(self, store: Store, series: Series, incident: Incident, *, transition: bool = True) -> bool:
        """One atomic step; False when another worker was first."""
        keys, record = store.keys, incident.record
        argument: dict[str, Any] = {
            "alert": record.alert,
            "fingerprint": record.fingerprint,
            "version": record.version - transition,
            "last_period": trend.last_period(series),
            "detail": _text(incident.detail),
        }
        if transition:
            at = records.milliseconds(record.ts)
            value = _text(record)
            publication = {"topic": self._topic, "key": record.fingerprint, "value": value}
            argument |= {
                "entity": record.entity,
                "record": value,
                "state": record.state,
                "partition": incident.partition,
                "at": at,
                "period": f"{_window(incident.opened)[0]}:{at if record.state == 'resolved' else ''}",
                "publication": _text(publication),
                "prefix": self._prefix,
                "keep": KEPT,
                "periods_ms": PERIODS,
            }
        touched = [
            keys.alert(record.alert),
            keys.alerts(),
            keys.active(),
            keys.periods(record.kind, record.entity),
            keys.outbox(self.name, incident.partition),
        ]
        return bool(store.run(("transition",), touched, argument))


def alerts_list(store: Store, state: str | None = None) -> list[dict[str, Any]]:
    """The latest record of each alert that the store keeps, newest first; of one state only, if it is given."""
    newest: list[Any] = store.call(lambda: store.client.zrevrange(store.keys.alerts(), 0, -1))
    pipe = store.client.pipeline(transaction=False)
    for alert in newest:
        pipe.hget(store.keys.alert(as_text(alert)), "record")
    found = [msgspec.json.decode(raw) for raw in (store.call(pipe.execute) if newest else []) if raw]
    return [record for record in found if state in (None, record["state"])]


def _window(at: int) -> tuple[int, int]:
    """The window that ends with the minute of `at`, in ms."""
    end = start_of(at, MINUTE) + MINUTE
    return end - WINDOW, end


def _closed(watermark: Mapping[bytes, bytes], now: float) -> int:
    """Until when buckets are closed, by the watermark that the news pipeline keeps."""
    times = {as_text(name): int(value) for name, value in watermark.items()}
    partitions = {
        int(name): (event, times.get(f"{name}:at", 0)) for name, event in times.items() if name.isdigit()
    }
    return closed_until(watermark_of(partitions, int(now * 1000)))


def _text(value: Any) -> str:
    """JSON as text: the scripts' msgpack knows no bytes."""
    return msgspec.json.encode(value).decode()


def _incident(found: Sequence[bytes | None]) -> Incident | None:
    record, detail, partition = found
    if record is None or detail is None or partition is None:
        return None
    return Incident(
        record=msgspec.json.decode(record, type=records.Alert),
        detail=msgspec.json.decode(detail, type=incidents.Detail),
        partition=int(partition),
    )
