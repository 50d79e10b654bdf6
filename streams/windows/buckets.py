"""Trend buckets: which exist, how long they are kept, how they lie in the store's hashes, when they close.

Pure: times are milliseconds since 1970 (integers), nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
GRACE = 30_000  # ms after its end before a bucket closes


@dataclass(frozen=True)
class Size:
    """A bucket size: its width, how long its buckets are kept, how much time one hash of the store holds; in ms."""

    name: str
    width: int
    span: int
    slice: int


# The widths and spans are the contract's. A slice holds some 24 to 60 buckets, so that a hash stays small.
SIZES = {
    size.name: size
    for size in (
        Size("1m", MINUTE, 6 * HOUR, 30 * MINUTE),
        Size("5m", 5 * MINUTE, 3 * DAY, 2 * HOUR),
        Size("1h", HOUR, 60 * DAY, DAY),
        Size("1d", DAY, 730 * DAY, 30 * DAY),
    )
}
# One letter a counter in the store: headlines by label, stories, and stories whose first copy is negative.
FIELDS = {"g": "negative", "n": "neutral", "p": "positive", "s": "stories", "b": "negative_stories"}


def start_of(ts: int, width: int) -> int:
    """The start of the bucket (or slice) of this width that holds a time."""
    return ts - ts % width


def slices(size: Size, since: int, until: int) -> list[int]:
    """The starts of the slices that hold the buckets from `since` (included) to `until` (excluded)."""
    return list(range(start_of(since, size.slice), max(until, since + 1), size.slice))


def expires_at(size: Size, slice_start: int) -> int:
    """When the store may forget a slice: its last bucket's end plus the span, in ms."""
    return slice_start + size.slice + size.span


def closed_until(watermark: int) -> int:
    """Buckets that end at or before this time are closed under this watermark, in ms."""
    return watermark - GRACE


def watermark_of(partitions: Mapping[int, tuple[int, int]], now: int, idle_after: int = MINUTE) -> int:
    """The watermark of a topic: the smallest of its active partitions' largest event times; all in ms.

    `partitions` gives, for each partition, its largest event time and the wall time of its last record. Event
    times ahead of the clock count as the clock. A partition without a record for `idle_after` is idle; when all
    are, the clock is the watermark.
    """
    active = [min(event, now) for event, seen in partitions.values() if now - seen < idle_after]
    return min(active, default=now)


def decode(fields: Iterable[tuple[str, int]]) -> dict[int, dict[str, int]]:
    """Counters by bucket start from the fields `<start in seconds>:<letter>` of a slice's hash."""
    buckets: dict[int, dict[str, int]] = {}
    for name, count in fields:
        start, _, letter = name.partition(":")
        if letter in FIELDS:
            buckets.setdefault(int(start) * 1000, {})[FIELDS[letter]] = count
    return buckets
