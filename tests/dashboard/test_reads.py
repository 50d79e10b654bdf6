"""One read for all viewers, and the last values while the store is away."""

from __future__ import annotations

import threading
import time

import pytest

from dashboard.reads import Reads, ranked
from streams.state.store import Store, Unavailable
from streams.state.views import Mover
from tests.dashboard.seed import fill


class Clock:
    """A clock that is set by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def reads(clock: Clock) -> Reads:
    """Reads of a store that nobody asks."""
    return Reads(Store("redis://127.0.0.1:9/0", "t"), clock)


def test_all_viewers_of_a_second_share_one_read(reads: Reads, clock: Clock) -> None:
    """Within its time to live a value is given again; after it, it is read again."""
    asked: list[float] = []

    def load(store: Store, now: float) -> int:
        asked.append(now)
        return len(asked)

    assert [reads.get("a", load).value for _ in range(20)] == [1] * 20
    clock.now += 1.0
    assert reads.get("a", load).value == 2
    assert len(asked) == 2


def test_nobody_waits_for_a_slow_read(reads: Reads, clock: Clock) -> None:
    """While one viewer reads, another is given the last value at once."""
    reads.get("a", lambda store, now: "old")
    clock.now += 1.0
    reading, done = threading.Event(), threading.Event()

    def slow(store: Store, now: float) -> str:
        reading.set()
        assert done.wait(10)
        return "new"

    first = threading.Thread(target=reads.get, args=("a", slow))
    first.start()
    assert reading.wait(10)
    assert reads.get("a", slow).value == "old"
    done.set()
    first.join(10)
    assert reads.get("a", slow).value == "new"


def test_last_values_stay_while_the_store_is_away(reads: Reads, clock: Clock) -> None:
    """A failing read keeps the value and says since when; the first that succeeds ends it."""

    def fails(store: Store, now: float) -> str:
        raise Unavailable("gone")

    reads.get("a", lambda store, now: "kept")
    clock.now = 1_010.0
    assert reads.get("a", fails).away_since == 1_010.0
    clock.now = 1_020.0
    found = reads.get("a", fails)
    assert (found.value, found.read_at, found.away_since, found.reason) == ("kept", 1_000.0, 1_010.0, "gone")
    clock.now = 1_030.0
    back = reads.get("a", lambda store, now: "back")
    assert (back.value, back.away_since) == ("back", None)


def test_a_store_that_is_away_is_asked_once_a_second(reads: Reads, clock: Clock) -> None:
    """Other readings do not try again what has just failed, so that a hanging store does not hold up the page."""
    asked: list[str] = []

    def fails(store: Store, now: float) -> str:
        asked.append("once")
        raise Unavailable("gone")

    for name in ("a", "b", "c"):
        assert reads.get(name, fails).value is None
    assert asked == ["once"]


def test_the_place_of_the_store_hides_its_password() -> None:
    """What the page shows of the store's URL has neither user nor password."""
    reads = Reads(Store("redis://user:secret@db.example:6380/1", "t"))
    assert reads.place == "db.example:6380"


def mover(entity: str, stories: int = 0) -> Mover:
    """An entity with so many stories, usually none."""
    return Mover(entity, entity, 0, stories, 0.0, 0, 0.0, [])


def test_movers_keep_their_order_unless_one_moves_far() -> None:
    """Rows do not jump from second to second; what moves far comes in at once, what is gone leaves."""
    order = ["a", "b"]
    assert [found.entity for found in ranked([mover("b", 2), mover("a"), mover("c")], order, 2)] == order
    assert ranked([mover("c", 9), mover("a"), mover("b")], order, 2) == []
    assert ranked([mover("a"), mover("c")], order, 2) == []


def test_rates_of_payments_are_kept_beside_those_of_news(store_url: str, unique: str) -> None:
    """Each look at the store adds one sample for either pipeline, and leaves the movers what they are."""
    store = Store(store_url, unique)
    fill(store, time.time())
    reads = Reads(store)
    shown = reads.overview().value
    assert shown is not None
    assert shown.movers
    assert all(isinstance(mover, Mover) for mover in shown.movers)
    assert [(rate, behind) for _, rate, behind in reads.history] == [(0.1, 0)]
    assert [(rate, behind) for _, rate, behind in reads.paid] == [(0.1, 0)]
