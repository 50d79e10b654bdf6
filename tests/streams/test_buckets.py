"""Trend buckets: slices, closing, expiry, and the store's fields."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.windows.buckets import (
    DAY,
    FIELDS,
    GRACE,
    HOUR,
    MINUTE,
    SIZES,
    Size,
    closed_until,
    decode,
    expires_at,
    slices,
    start_of,
    watermark_of,
)

NOW = 1_795_000_000_000
times = st.integers(NOW - 60 * DAY, NOW)
sizes = st.sampled_from(list(SIZES.values()))


def test_the_contract_sizes() -> None:
    """Buckets are kept as the contract says: 1 m for 6 hours, 5 m for 3 days, 1 h for 60 days, 1 d for two years."""
    assert {size.name: (size.width, size.span) for size in SIZES.values()} == {
        "1m": (MINUTE, 6 * HOUR),
        "5m": (5 * MINUTE, 3 * DAY),
        "1h": (HOUR, 60 * DAY),
        "1d": (DAY, 730 * DAY),
    }


@given(times, sizes)
def test_a_bucket_lies_in_one_slice(ts: int, size: Size) -> None:
    """The bucket of a time and the slice of that bucket both hold the time."""
    bucket, piece = start_of(ts, size.width), start_of(ts, size.slice)
    assert bucket <= ts < bucket + size.width
    assert piece <= bucket
    assert bucket + size.width <= piece + size.slice


@given(times, sizes, st.integers(1, 300))
def test_slices_cover_their_time_once(since: int, size: Size, buckets: int) -> None:
    """Every bucket of a span lies in one of its slices, and no slice is beside it."""
    until = since + buckets * size.width
    found = slices(size, since, until)
    needed = {start_of(start, size.slice) for start in range(since, until, size.width)}
    assert needed <= set(found)
    assert found == sorted(set(found))
    assert found[0] <= since
    assert found[-1] < until


@given(times, sizes)
def test_a_slice_outlives_its_buckets(ts: int, size: Size) -> None:
    """A slice expires when the span of its last bucket has passed, never before that of an earlier one."""
    piece = start_of(ts, size.slice)
    assert expires_at(size, piece) >= start_of(ts, size.width) + size.width + size.span


def test_a_bucket_closes_after_its_grace() -> None:
    """A bucket is closed once the watermark is thirty seconds past its end."""
    end = start_of(NOW, MINUTE)
    assert closed_until(end + GRACE) >= end > closed_until(end + GRACE - 1)


def test_watermark_is_the_slowest_active_partition() -> None:
    """Of the partitions with a record in the last minute, the one that is furthest behind counts."""
    assert watermark_of({0: (NOW - 5_000, NOW), 1: (NOW - 90_000, NOW - 1_000)}, NOW) == NOW - 90_000


def test_an_idle_partition_holds_nothing_back() -> None:
    """A partition without a record for a minute does not count."""
    assert watermark_of({0: (NOW - 5_000, NOW), 1: (NOW - HOUR, NOW - MINUTE)}, NOW) == NOW - 5_000


def test_an_idle_stream_follows_the_clock() -> None:
    """When no partition is active, or none was ever seen, the watermark is the clock."""
    assert [watermark_of({}, NOW), watermark_of({0: (NOW - DAY, NOW - DAY)}, NOW)] == [NOW, NOW]


def test_watermark_is_never_ahead_of_the_clock() -> None:
    """A record from the future moves the watermark to the clock, no further."""
    assert watermark_of({0: (NOW + 4 * MINUTE, NOW)}, NOW) == NOW


@given(st.dictionaries(st.tuples(times, st.sampled_from(sorted(FIELDS))), st.integers(1, 10**6), max_size=40))
def test_decode_reads_what_the_store_writes(counts: dict[tuple[int, str], int]) -> None:
    """Each field `<start in seconds>:<letter>` comes out as a counter of its bucket."""
    starts = {(start_of(ts, MINUTE), letter): count for (ts, letter), count in counts.items()}
    buckets = decode((f"{start // 1000}:{letter}", count) for (start, letter), count in starts.items())
    found = {(start, name): count for start, fields in buckets.items() for name, count in fields.items()}
    assert found == {(start, FIELDS[letter]): count for (start, letter), count in starts.items()}


def test_decode_leaves_out_fields_of_other_versions() -> None:
    """A letter that is not known is no counter."""
    assert decode([("1795000020:z", 3)]) == {}
