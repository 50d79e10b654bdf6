"""Trends out of the store: the buckets of an entity with what was expected in them, for charts and for the surge rule.

All times are milliseconds since 1970. However many entities are asked for, it is one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypedDict

from streams.state.keys import MARKET
from streams.state.store import Store, as_text
from streams.windows import surge
from streams.windows.buckets import DAY, FIELDS, SIZES, closed_until, decode, slices, start_of
from streams.windows.surge import Period, Series

KIND = "sentiment"  # the kind of alert whose periods are left out of what is usual
# What the baseline of a size looks back at.
MEMORY = {"1m": surge.MEMORY, "5m": surge.MEMORY, "1h": DAY, "1d": 14 * DAY}


class Bucket(TypedDict):
    """One bucket of a trend, as `tapewatch trend --json` prints it."""

    start: str  # RFC 3339
    entity: str
    negative: int
    neutral: int
    positive: int
    stories: int
    negative_stories: int
    baseline: float  # negative stories expected in the bucket


class Trend(NamedTuple):
    """What the store knows about an entity: its buckets, and its negative stories as the surge rule takes them."""

    buckets: dict[int, dict[str, int]]  # by start; a missing one is empty
    series: Series


def trend(store: Store, entity: str, size: str, since_ms: int, until_ms: int, now_ms: int) -> list[Bucket]:
    """The buckets of one entity that start in this time (`since` is rounded down), oldest first, empty ones included.

    Entities are named as in the store: `market`, `symbol:AAPL`. Raises KeyError for an unknown size, Unavailable.
    """
    return trends(store, [entity], size, since_ms, until_ms, now_ms)[entity]


def trends(
    store: Store, entities: Sequence[str], size: str, since_ms: int, until_ms: int, now_ms: int
) -> dict[str, list[Bucket]]:
    """The same for many entities at once."""
    known = SIZES[size]
    since = start_of(max(since_ms, now_ms - known.span), known.width)
    found = read(store, entities, size, since - MEMORY[size], until_ms, now_ms)
    closed = closed_until(now_ms)
    starts = range(since, until_ms, known.width)
    return {
        entity: [_bucket(entity, found[entity], start, size, closed) for start in starts]
        for entity in entities
    }


def read(
    store: Store, entities: Sequence[str], size: str, since: int, until: int, now: int
) -> dict[str, Trend]:
    """What the store has about each entity from `since` until `until`, as far back as it keeps buckets of this size."""
    known = SIZES[size]
    since = start_of(max(since, now - known.span), known.width)
    keys = store.keys
    names = list(dict.fromkeys(entities))
    pieces = slices(known, since, until)
    pipe = store.client.pipeline(transaction=False)
    for piece in pieces:  # since when there were headlines at all: before that, zeros are no zeros
        pipe.hkeys(keys.trend(MARKET, size, piece))
    for name in names:
        for piece in pieces:
            pipe.hgetall(keys.trend(name, size, piece))
        pipe.lrange(keys.periods(KIND, name), 0, -1)
    replies = iter(store.call(pipe.execute))
    begun = [int(field.partition(b":")[0]) * 1000 for _ in pieces for field in next(replies)]
    known_since = min((start for start in begun if start >= since), default=since)
    found: dict[str, Trend] = {}
    for name in names:
        buckets = decode(
            (as_text(field), int(count)) for _ in pieces for field, count in next(replies).items()
        )
        periods = [period(as_text(line)) for line in next(replies)]
        counts = [
            buckets.get(start, {}).get("negative_stories", 0) for start in range(since, until, known.width)
        ]
        found[name] = Trend(buckets, Series(since, known.width, counts, known_since, periods))
    return found


def last_period(series: Series) -> str:
    """The newest incident of an entity as the store's list has it, or an empty string."""
    if not series.periods:
        return ""
    start, end = series.periods[-1]
    return f"{start}:{'' if end is None else end}"


def period(line: str) -> Period:
    """An incident's time from its line in the store's list."""
    start, _, end = line.partition(":")
    return Period(int(start), int(end) if end else None)


def _bucket(entity: str, found: Trend, start: int, size: str, closed: int) -> Bucket:
    counts = dict.fromkeys(FIELDS.values(), 0) | found.buckets.get(start, {})
    rate = surge.rate_before(found.series, start, closed, MEMORY[size])
    return Bucket(
        start=datetime.fromtimestamp(start / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        entity=entity,
        negative=counts["negative"],
        neutral=counts["neutral"],
        positive=counts["positive"],
        stories=counts["stories"],
        negative_stories=counts["negative_stories"],
        baseline=round(rate * SIZES[size].width, 3),
    )
