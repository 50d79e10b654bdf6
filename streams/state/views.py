"""The read side of the store: what pages and commands show, each view in one or two pipelined round trips.

Never writes. Everything is bounded: so many headlines, alerts, entities. What the store holds was written by
other processes, perhaps of another version: an entry that cannot be read is left out, not raised. Every
function raises `store.Unavailable` while the store is away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from streams.records import Alert, EntitySentiment, Sentiment, Severity
from streams.state.keys import MARKET
from streams.state.store import Store, as_text
from streams.state.vitals import Health, decoded, health
from streams.windows import trend
from streams.windows.buckets import HOUR, MINUTE, SIZES, closed_until, start_of
from streams.windows.surge import MEMORY, WINDOW, rate_before
from streams.windows.trend import Trend

MOVERS_SINCE = 3 * HOUR  # an entity without a headline for this long does not move
CANDIDATES = 40  # entities, the most recently met, that are looked at to find those that move
SEVERITIES = ("critical", "warning", "info")
STATES = ("firing", "pending", "acknowledged", "silenced", "resolved")


class Headline(Struct, frozen=True):
    """A scored headline as a feed keeps it; `at` is its event time in ms."""

    id: str
    title: str
    source: str
    sentiment: Sentiment
    url: str = ""
    entities: list[EntitySentiment] = []
    scored_at: str = ""
    story: str = ""
    duplicate_of: str | None = None
    at: int = 0


class Evidence(Struct, frozen=True):
    """A headline that an alert stands on."""

    id: str
    title: str = ""
    ts: str = ""
    source: str = ""
    label: str = ""


class Transition(Struct, frozen=True):
    """One step of an alert's life."""

    ts: str
    state: str
    version: int = 0
    value: float = 0.0


class Detail(Struct, frozen=True):
    """What judged an alert; value and severity are the worst of its life so far."""

    headlines: list[Evidence] = []
    title: str = ""
    name: str = ""
    value: float = 0.0
    severity: Severity | None = None
    expected: float = 0.0
    window_minutes: float = 5
    counted: str = "negative stories"
    percent: bool = False
    opened: str = ""
    history: list[Transition] = []


@dataclass(frozen=True)
class AlertView:
    """An alert: its latest record, and its detail."""

    record: Alert
    detail: Detail

    @property
    def at(self) -> int:
        """When it last changed, in ms."""
        return int(self.record.ts.timestamp() * 1000)

    @property
    def opened(self) -> int:
        """When it began, in ms; when it last changed, where its detail does not say."""
        try:
            return int(datetime.fromisoformat(self.detail.opened).timestamp() * 1000)
        except ValueError:
            return self.at

    @property
    def severity(self) -> Severity:
        """The worst so far."""
        return self.detail.severity or self.record.severity

    @property
    def active(self) -> bool:
        """Whether it still is going on."""
        return self.record.state != "resolved"

    @property
    def outlets(self) -> list[str]:
        """The distinct outlets of its evidence."""
        return sorted({headline.source for headline in self.detail.headlines if headline.source})


@dataclass(frozen=True)
class Mover:
    """An entity, its last five minutes beside what is usual for it, and its three hours in 5-minute buckets.

    `series` has a (stories, negative stories) pair a bucket, the oldest first, the open one last. What is usual comes
    from the closed buckets of six hours; of negative stories it is what the surge rule expects, its surges left out.
    """

    entity: str
    name: str
    at: int
    stories: int
    usual_stories: float
    negative: int
    usual_negative: float
    series: list[tuple[int, int]]

    @property
    def surprise(self) -> float:
        """How far the counts lie above what is usual, in standard deviations (Poisson)."""
        excess = (self.stories - self.usual_stories) / math.sqrt(self.usual_stories + 1.0)
        negative = (self.negative - self.usual_negative) / math.sqrt(self.usual_negative + 1.0)
        return max(excess, negative)


@dataclass(frozen=True)
class Overview:
    """What every page shows; `read_at` in unix seconds."""

    read_at: float
    alerts: list[AlertView]
    market: Mover
    movers: list[Mover]
    newest: list[Headline]
    health: Health


def overview(store: Store, now: float, moving: Sequence[Mover] = ()) -> Overview:
    """Alerts, movers, newest headlines and vitals; `moving` are the movers of a moment ago, or they are read too."""
    market, *others = moving or movers(store, now)
    return Overview(
        read_at=now,
        alerts=alerts(store),
        market=market,
        movers=others,
        newest=feed(store, MARKET, 60),
        health=health(store),
    )


def feed(store: Store, entity: str = MARKET, limit: int = 1000) -> list[Headline]:
    """The newest scored headlines of an entity (or the market), copies included, the newest first."""
    client: Any = store.client
    found = store.call(lambda: client.zrevrange(store.keys.feed(entity), 0, limit - 1, withscores=True))
    return list(_headlines(found))


def alerts(store: Store, limit: int = 100) -> list[AlertView]:
    """The alerts that changed last: firing on top, the worst and newest first, resolved at the end."""
    client: Any = store.client
    found = store.call(
        lambda: client.sort(
            store.keys.alerts(), by="nosort", desc=True, start=0, num=limit, get=_alert_fields(store)
        )
    )
    views = (_alert(*pair) for pair in zip(found[::2], found[1::2], strict=True))
    return sorted((view for view in views if view), key=_urgency)


def alert(store: Store, identity: str) -> AlertView | None:
    """One alert, or None when the store does not know it."""
    client: Any = store.client
    return _alert(*store.call(lambda: client.hmget(store.keys.alert(identity), "record", "detail")))


def movers(store: Store, now: float, limit: int = CANDIDATES) -> list[Mover]:
    """The market first, then of the entities met last those that are furthest above what is usual."""
    now_ms = int(now * 1000)
    client: Any = store.client
    known = store.call(
        lambda: client.zrevrangebyscore(
            store.keys.entities(), "+inf", now_ms - MOVERS_SINCE, start=0, num=CANDIDATES, withscores=True
        )
    )
    market, *others = measure(store, {MARKET: 0, **{as_text(name): int(at) for name, at in known}}, now)
    others.sort(key=lambda mover: (-mover.surprise, -mover.at))
    return [market, *others[:limit]]


def measure(store: Store, entities: Mapping[str, int], now: float) -> list[Mover]:
    """These entities (with the event time of their last headline, ms) beside what is usual for each."""
    now_ms, names = int(now * 1000), list(entities)
    fine = trend.read(store, names, "1m", now_ms - WINDOW, now_ms + 1, now_ms)
    coarse = trend.read(store, names, "5m", now_ms - MEMORY, now_ms + 1, now_ms)
    called = _names(store, names)
    return [
        _mover(name, called.get(name, name.partition(":")[2] or name), at, fine[name], coarse[name], now_ms)
        for name, at in entities.items()
    ]


def entities(store: Store, limit: int = 1000) -> list[str]:
    """The entities that were met last, the newest first."""
    client: Any = store.client
    found = store.call(lambda: client.zrevrange(store.keys.entities(), 0, limit - 1))
    return [as_text(name) for name in found]


def _mover(entity: str, name: str, at: int, fine: Trend, coarse: Trend, now_ms: int) -> Mover:
    width = SIZES["5m"].width
    newest = start_of(now_ms, width)
    recent = [start for start in fine.buckets if start > now_ms - WINDOW - MINUTE]
    before = range(start_of(coarse.series.known_since, width), newest - width, width)
    usual = sum(_count(coarse, start, "stories") for start in before) / max(1, len(before))
    starts = range(newest - MOVERS_SINCE + width, newest + 1, width)
    return Mover(
        entity=entity,
        name=name,
        at=at,
        stories=sum(_count(fine, start, "stories") for start in recent),
        usual_stories=usual,
        negative=sum(_count(fine, start, "negative_stories") for start in recent),
        usual_negative=rate_before(coarse.series, now_ms - WINDOW, closed_until(now_ms)) * WINDOW,
        series=[
            (_count(coarse, start, "stories"), _count(coarse, start, "negative_stories")) for start in starts
        ],
    )


def _count(found: Trend, start: int, name: str) -> int:
    return found.buckets.get(start, {}).get(name, 0)


def _names(store: Store, entities: Sequence[str]) -> dict[str, str]:
    """What the last headline of each entity calls it."""
    pipe = store.client.pipeline(transaction=False)
    for entity in entities:
        pipe.zrange(store.keys.feed(entity), -1, -1)
    called = {}
    for entity, found in zip(entities, store.call(pipe.execute), strict=True):
        headline = decoded(found[0], Headline) if found else None
        symbol = entity.partition(":")[2]
        for about in headline.entities if headline else ():
            if about.symbol == symbol:
                called[entity] = about.name
    return called


def _headlines(found: Iterable[tuple[bytes, float]]) -> Iterable[Headline]:
    for raw, score in found:
        headline = decoded(raw, Headline)
        if headline is not None:
            yield msgspec.structs.replace(headline, at=int(score))


def _urgency(view: AlertView) -> tuple[int, int, int]:
    severity = SEVERITIES.index(view.severity) if view.active else 0
    return STATES.index(view.record.state), severity, -view.at


def _alert_fields(store: Store) -> list[str]:
    return [f"{store.keys.alert('*')}->record", f"{store.keys.alert('*')}->detail"]


def _alert(record: Any, detail: Any) -> AlertView | None:
    latest = decoded(record, Alert)
    return None if latest is None else AlertView(latest, decoded(detail, Detail) or Detail())
