"""Alerts: signals say which entities to look at, the store's windows say whether they surge, alerts follow.

Nothing depends on the order in which signals arrive: a window is what the store holds about it once a batch is
counted, so a redelivered signal finds what it led to. An alert changes by compare-and-set on its version
(`transition.lua`), which writes the record to publish with it. The rule is `windows/surge.py`: by a signal it fires
on the open minute, by the timer it resolves on closed ones.
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
from streams.state.keys import MARKET
from streams.state.store import Store, as_text
from streams.windows import surge, trend
from streams.windows.buckets import HOUR, MINUTE, SIZES, closed_until, slices, start_of, watermark_of
from streams.windows.surge import WINDOW, Series

log = logging.getLogger("tapewatch.alerts")

KIND = trend.KIND  # the one kind that is judged so far
STALE = HOUR  # ms; an older signal pages nobody: it is history, for baselines
KEPT = 1000  # resolved alerts, the newest
ROUNDS = 40  # looks at an entity in one go: an hour of back-dated headlines holds at most ten incidents
PERIODS = surge.MEMORY + HOUR  # how long an incident is kept out of what is usual


class Moment(NamedTuple):
    """The newest signal about an entity in one minute: its time in ms, and the partition that it came from."""

    at: int
    partition: int


class Scene(NamedTuple):
    """All that one look at an entity found in the store."""

    entity: str
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
        self._watermark = store.keys.watermark(settings.topic("news"))
        self._ticked: object = None  # what the last tick judged by

    def prepare(self, batch: Sequence[Signal], now: float) -> list[Prepared]:
        """Signals that can raise an alert are `scored`, all others filtered."""
        return [Prepared(None, None, "scored" if _counts(signal, now) else "filtered") for signal in batch]

    def settings(self) -> dict[str, Any]:
        """Nothing for alerts.lua."""
        return {}

    def derive(self, record: Signal, prepared: Prepared, decision: Any, now: float) -> Iterable[Out]:  # noqa: ARG002
        """No records of its own: transitions leave through the outbox."""
        return ()

    def mask(self, raw: bytes) -> bytes:
        """Signals hold nothing that must not be kept."""
        return raw

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """Judge every entity and minute that the batch touched, also by signals that came again."""
        touched: dict[str, dict[int, Moment]] = {}
        for item in done:
            if item.status in ("new", "again") and item.prepared and item.prepared.outcome == "scored":
                at = min(records.milliseconds(item.record.ts), int(now * 1000))
                moments = touched.setdefault(item.record.entity, {})
                minute = start_of(at, MINUTE)
                moments[minute] = max(moments.get(minute, Moment(0, 0)), Moment(at, item.partition))
        if touched:
            hot = self._hot(store, touched)
            self._review(store, {entity: sorted(touched[entity].values()) for entity in hot}, now)

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        """Look again at the active alerts of the owned partitions, once a minute has closed or they have changed."""
        pipe = store.client.pipeline(transaction=False)
        pipe.hvals(store.keys.active())
        pipe.hgetall(self._watermark)
        alerts, watermark = store.call(pipe.execute)
        partitions = tuple(sorted(owned.get(self._signals, ())))
        seen = (start_of(_closed(watermark, now), MINUTE), tuple(sorted(alerts)), partitions)
        if seen == self._ticked:
            return
        for alert in alerts:
            pipe.hmget(store.keys.alert(as_text(alert)), "entity", "partition")
        found = store.call(pipe.execute) if alerts else []
        mine = [as_text(entity) for entity, partition in found if entity and int(partition) in partitions]
        self._review(store, {entity: [] for entity in mine}, now)
        self._ticked = seen

    def close(self) -> None:
        """Nothing was opened."""

    def _hot(self, store: Store, touched: Mapping[str, Mapping[int, Moment]]) -> list[str]:
        """The entities worth a close look: an alert is active, or some window has enough stories at all."""
        pipe = store.client.pipeline(transaction=False)
        pipe.hmget(store.keys.active(), [incidents.fingerprint(KIND, entity) for entity in touched])
        windows = [(entity, minute) for entity in touched for minute in touched[entity]]
        asked = [_ask_window(pipe, store, entity, minute) for entity, minute in windows]
        active, *replies = store.call(pipe.execute)
        hot = {entity: None for entity, alert in zip(touched, active, strict=True) if alert}
        answers = iter(replies)
        for (entity, _), hashes in zip(windows, asked, strict=True):
            value = sum(int(count) for _ in range(hashes) for count in next(answers) if count)
            if value >= surge.LEAST:
                hot[entity] = None
        return list(hot)

    def _review(self, store: Store, touched: Mapping[str, Sequence[Moment]], now: float) -> None:
        """Look and act until no alert of these entities changes any more."""
        left = dict(touched)
        for _ in range(ROUNDS):
            if not left:
                return
            scenes, closed = self._look(store, left, now)
            again = [scene.entity for scene in scenes if self._act(store, scene, left, closed)]
            left = {entity: left[entity] for entity in again}
        log.warning("alerts of %s still change after %d looks; the timer goes on", ", ".join(left), ROUNDS)

    def _look(
        self, store: Store, touched: Mapping[str, Sequence[Moment]], now: float
    ) -> tuple[list[Scene], int]:
        """What the store knows of these entities, the alerts first: a change since then loses the compare-and-set."""
        keys = store.keys
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(self._watermark)
        pipe.hmget(keys.active(), [incidents.fingerprint(KIND, entity) for entity in touched])
        watermark, active = store.call(pipe.execute)
        closed = _closed(watermark, now)
        for (entity, moments), alert in zip(touched.items(), active, strict=True):
            pipe.hmget(keys.alert(as_text(alert or b"")), "record", "detail", "partition")
            first, last = (moments[0].at, moments[-1].at) if moments else (1, 0)
            pipe.zrangebyscore(keys.feed(entity), _window(first)[0], last + MINUTE)
        found = store.call(pipe.execute)
        until = max([closed, *(_window(moments[-1].at)[1] for moments in touched.values() if moments)])
        trends = trend.read(store, list(touched), "1m", until - 2 * surge.MEMORY, until, int(now * 1000))
        scenes = [
            Scene(entity, _incident(found[2 * index]), trends[entity].series, found[2 * index + 1])
            for index, entity in enumerate(touched)
        ]
        return scenes, closed

    def _act(self, store: Store, scene: Scene, touched: Mapping[str, Sequence[Moment]], closed: int) -> bool:
        """Take the next step of one entity, if there is one; whether it needs another look."""
        entity, incident, series, feed = scene
        moments = touched[entity]
        if incident is not None:
            cleared = surge.clears(series, incident.opened, closed)
            if cleared is not None:
                self._write(store, series, incidents.resolve(incident, cleared))
                return True
            for moment in moments:
                if moment.at >= incident.opened:
                    verdict = surge.judge(series, moment.at, closed)
                    cause = incidents.cause(entity, feed, *_window(moment.at))
                    incident = incidents.follow(incident, verdict, cause) or incident
            return incident != scene.incident and not self._write(store, series, incident, transition=False)
        for moment in moments:
            verdict = surge.judge(series, moment.at, closed)
            if verdict.fires:
                cause = incidents.cause(entity, feed, *_window(moment.at))
                self._write(store, series, incidents.fire(KIND, entity, *moment, verdict, cause))
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


def _counts(signal: Signal, now: float) -> bool:
    """Whether a signal can raise an alert: negative, about one entity, and no history."""
    if signal.kind != KIND or signal.entity == MARKET:
        return False
    return (signal.value < 0 or signal.severity != "info") and signal.ts.timestamp() >= now - STALE / 1000


def _window(at: int) -> tuple[int, int]:
    """The window that ends with the minute of `at`, in ms."""
    end = start_of(at, MINUTE) + MINUTE
    return end - WINDOW, end


def _ask_window(pipe: Pipe, store: Store, entity: str, minute: int) -> int:
    """Ask for the negative stories of a window; the number of replies that it takes."""
    size = SIZES["1m"]
    since, until = _window(minute)
    pieces = slices(size, since, until)
    for piece in pieces:
        first, last = max(since, piece), min(until, piece + size.slice)
        fields = [f"{start // 1000}:b" for start in range(first, last, MINUTE)]
        pipe.hmget(store.keys.trend(entity, size.name, piece), fields)
    return len(pieces)


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
