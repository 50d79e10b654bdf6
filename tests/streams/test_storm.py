"""The guard against decline storms, by a clock of the test's own."""

from __future__ import annotations

from streams.storm import ENOUGH, SUSPENDED, Change, StormGuard

MOST = {"wild": 0.25, "calm": 0.25}


def play(guard: StormGuard, since: int, seconds: int, each: int, wild: int, calm: int = 0) -> list[Change]:
    """So many records a second, of which the rules hit so many."""
    found: list[Change] = []
    for second in range(since, since + seconds):
        found += guard.observe(float(second), each, {"wild": wild, "calm": calm}, MOST)
    return found


def test_a_rule_that_suddenly_hits_much_is_suspended() -> None:
    """After minutes of one in a hundred a rule that hits half of the traffic is suspended; no other is."""
    guard = StormGuard()
    assert play(guard, 0, 600, each=100, wild=1, calm=1) == []
    (change,) = play(guard, 600, 10, each=100, wild=50, calm=1)
    assert (change.rule, change.suspended) == ("wild", True)
    assert change.share >= 0.25
    assert change.usual < 0.03
    assert guard.suspended == {"wild"}


def test_it_returns_when_its_share_has_fallen() -> None:
    """A suspended rule decides again once it would hit less than half of what it may."""
    guard = StormGuard()
    play(guard, 0, 60, each=100, wild=60)
    assert guard.suspended == {"wild"}
    assert play(guard, 60, 30, each=100, wild=60) == []
    (change,) = play(guard, 90, 120, each=100, wild=1)
    assert (change.rule, change.suspended) == ("wild", False)
    assert guard.suspended == frozenset()


def test_it_stays_suspended_for_a_minute() -> None:
    """A storm that is over at once does not make the rule flap."""
    guard = StormGuard()
    play(guard, 0, 10, each=100, wild=60)
    assert play(guard, 10, int(SUSPENDED) - 20, each=100, wild=0) == []
    assert guard.suspended == {"wild"}


def test_few_records_are_no_storm() -> None:
    """A share is not measured on fewer records than it takes."""
    guard = StormGuard()
    assert play(guard, 0, ENOUGH - 1, each=1, wild=1) == []


def test_a_rule_that_always_hits_much_is_no_storm() -> None:
    """A rule that may hit all of the traffic, because it was written so, is never suspended."""
    guard = StormGuard()
    many = {"wild": 1.0}
    for second in range(600):
        assert guard.observe(float(second), 100, {"wild": 90}, many) == []


def test_slow_traffic_is_watched_over_minutes() -> None:
    """At one record a second the last five minutes are looked at."""
    guard = StormGuard()
    play(guard, 0, 600, each=1, wild=0)
    found = play(guard, 600, 200, each=1, wild=1)
    assert [change.suspended for change in found] == [True]


def test_a_storm_does_not_become_usual() -> None:
    """What a suspended rule would have hit is no part of what it usually hits."""
    guard = StormGuard()
    play(guard, 0, 600, each=100, wild=1)
    play(guard, 600, 2000, each=100, wild=80)
    assert guard.shares("wild")[1] < 0.05
