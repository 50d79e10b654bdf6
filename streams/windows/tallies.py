"""Signals as the alerts pipeline counted them (alerts.lua): by kind, entity and minute, out of the store.

All times are milliseconds since 1970. However many entities are asked for, it is one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.client import Pipeline as Pipe

from streams.state.keys import MARKET, Keys
from streams.state.store import Store, as_text
from streams.windows.buckets import MINUTE, SIZES, slices, start_of
from streams.windows.surge import Series
from streams.windows.trend import period

SIZE = SIZES["1m"]


def ask(pipe: Pipe, keys: Keys, kind: str, entity: str, since: int, until: int) -> int:
    """Ask for the signals of each minute of a window; the number of replies that it takes."""
    pieces = slices(SIZE, since, until)
    for piece in pieces:
        first, last = max(since, piece), min(until, piece + SIZE.slice)
        pipe.hmget(
            keys.tally(kind, entity, piece), [str(start // 1000) for start in range(first, last, MINUTE)]
        )
    return len(pieces)


def read(
    store: Store, kind: str, entities: Sequence[str], since: int, until: int, now: int
) -> dict[str, Series]:
    """The minutes of each entity from `since` until `until`, as far back as they are kept."""
    since = start_of(max(since, now - SIZE.span), MINUTE)
    pieces = slices(SIZE, since, until)
    names = list(dict.fromkeys(entities))
    pipe = store.client.pipeline(transaction=False)
    for piece in pieces:  # since when there were signals of the kind at all: before that, zeros are no zeros
        pipe.hkeys(store.keys.tally(kind, MARKET, piece))
    for name in names:
        for piece in pieces:
            pipe.hgetall(store.keys.tally(kind, name, piece))
        pipe.lrange(store.keys.periods(kind, name), 0, -1)
    replies = iter(store.call(pipe.execute))
    begun = [int(field) * 1000 for _ in pieces for field in next(replies)]
    known_since = min((start for start in begun if start >= since), default=since)
    found: dict[str, Series] = {}
    for name in names:
        counts = {int(field) * 1000: int(count) for _ in pieces for field, count in next(replies).items()}
        periods = [period(as_text(line)) for line in next(replies)]
        minutes = [counts.get(start, 0) for start in range(since, until, MINUTE)]
        found[name] = Series(since, MINUTE, minutes, known_since, periods)
    return found
