"""Trends out of a real store: zero-filled buckets, their baseline, and one round trip for any number of entities."""

from __future__ import annotations

import pytest

from streams.windows.buckets import SIZES
from streams.windows.trend import last_period, read, trend, trends
from tests.streams.newsroom import Newsroom

NOW = 1_795_000_020.0  # a full minute
NOW_MS = round(NOW * 1000)
MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.fixture
def room(store_url: str, unique: str) -> Newsroom:
    """A newsroom on a store without history."""
    return Newsroom(store_url, unique)


def test_buckets_are_zero_filled_and_count_by_event_time(room: Newsroom) -> None:
    """Every bucket of the time stands in the list, with headlines by label and stories once."""
    room.headline(NOW - 150)
    room.headline(NOW - 149, copy_of="n1")
    room.headline(NOW - 30, label="positive")
    found = trend(room.store, "symbol:ACME", "1m", NOW_MS - 3 * MINUTE, NOW_MS, NOW_MS)
    numbers = [
        (
            row["start"],
            row["negative"],
            row["neutral"],
            row["positive"],
            row["stories"],
            row["negative_stories"],
        )
        for row in found
    ]
    assert numbers == [
        ("2026-11-18T11:04:00Z", 2, 0, 0, 1, 1),
        ("2026-11-18T11:05:00Z", 0, 0, 0, 0, 0),
        ("2026-11-18T11:06:00Z", 0, 0, 1, 1, 0),
    ]
    assert {row["entity"] for row in found} == {"symbol:ACME"}


@pytest.mark.parametrize("size", SIZES)
def test_every_size_adds_up(room: Newsroom, size: str) -> None:
    """Each bucket size counts each headline once."""
    for index in range(10):
        room.headline(NOW - 600 * index)
    width = SIZES[size].width
    since = NOW_MS - max(2 * HOUR, 2 * width)
    found = trend(room.store, "market", size, since, NOW_MS + 1, NOW_MS)
    assert sum(row["negative_stories"] for row in found) == 10


def test_baseline_is_what_the_closed_buckets_before_hold(room: Newsroom) -> None:
    """With one negative story each five minutes, some one is expected in five minutes, and a fifth in one."""
    for index in range(24):
        room.headline(NOW - 300 * index - 1)
    (five,) = trend(room.store, "symbol:ACME", "5m", NOW_MS, NOW_MS + 1, NOW_MS + 30_000)
    (one,) = trend(room.store, "symbol:ACME", "1m", NOW_MS, NOW_MS + 1, NOW_MS + 30_000)
    assert 0.7 < five["baseline"] < 1.1
    assert 0.14 < one["baseline"] < 0.22


def test_an_incident_is_no_part_of_the_baseline(room: Newsroom) -> None:
    """After a surge that fired and was resolved as much is expected as before."""
    worker = room.worker()
    items = [room.headline(NOW - 300 * index, now=NOW) for index in range(12, 0, -1)]
    at = NOW_MS + 10 * MINUTE
    (before,) = trend(room.store, "symbol:ACME", "1m", NOW_MS, NOW_MS + 1, NOW_MS)
    room.judge(worker, items + [room.headline(NOW + index) for index in range(20)], NOW + 20)
    (while_open,) = trend(room.store, "symbol:ACME", "1m", at, at + 1, at)
    room.tick(worker, NOW + 600)
    (after,) = trend(room.store, "symbol:ACME", "1m", at, at + 1, at)
    assert before["baseline"] * 0.7 < while_open["baseline"] < before["baseline"] * 1.3
    assert before["baseline"] * 0.7 < after["baseline"] < before["baseline"] * 1.3
    series = read(room.store, ["symbol:ACME"], "1m", at - HOUR, at, at)["symbol:ACME"].series
    assert last_period(series) == f"{NOW_MS - 4 * MINUTE}:{NOW_MS + 6 * MINUTE}"


def test_many_entities_take_one_round_trip(room: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entities are asked for, one pipeline is executed."""
    names = [f"symbol:S{index}" for index in range(30)]
    for name in names:
        room.headline(NOW - 60, name.partition(":")[2])
    trips = 0
    call = room.store.call

    def counted(work):  # type: ignore[no-untyped-def]
        nonlocal trips
        trips += 1
        return call(work)

    monkeypatch.setattr(room.store, "call", counted)
    found = trends(room.store, ["market", *names], "5m", NOW_MS - HOUR, NOW_MS, NOW_MS)
    assert trips == 1
    assert {name: sum(row["stories"] for row in rows) for name, rows in found.items()} == {
        "market": 30,
        **dict.fromkeys(names, 1),
    }


def test_an_empty_store_gives_zeros(room: Newsroom) -> None:
    """An entity that nobody knows has empty buckets and a small baseline."""
    found = trend(room.store, "symbol:NOBODY", "5m", NOW_MS - HOUR, NOW_MS, NOW_MS)
    assert len(found) == 13
    assert all(row["stories"] == 0 and 0 < row["baseline"] < 1 for row in found)


def test_no_further_back_than_the_store_keeps(room: Newsroom) -> None:
    """A time before the oldest kept bucket is cut off: there, zero would be a lie."""
    found = trend(room.store, "market", "1m", NOW_MS - 24 * HOUR, NOW_MS, NOW_MS)
    assert found[0]["start"] == "2026-11-18T05:07:00Z"


def test_an_unknown_size_is_refused(room: Newsroom) -> None:
    """A bucket size that does not exist is a KeyError."""
    with pytest.raises(KeyError):
        trend(room.store, "market", "2m", 0, NOW_MS, NOW_MS)
