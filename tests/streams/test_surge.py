"""The surge rule: what fires, what clears, what counts as usual."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.windows import surge
from streams.windows.buckets import GRACE, HOUR, MINUTE
from streams.windows.surge import Period, Series, clears, expectation, fires_at, judge, rate_before, tail

START = 1_795_000_020_000 // MINUTE * MINUTE
minutes = st.lists(st.integers(0, 12), min_size=10, max_size=80)


def series(counts: list[int], known_since: int = 0, periods: tuple[Period, ...] = ()) -> Series:
    return Series(START, MINUTE, counts, known_since, periods)


def background(hours: int) -> list[int]:
    """One story each five minutes."""
    return [1, 0, 0, 0, 0] * 12 * hours


def fires(counts: list[int], periods: tuple[Period, ...] = ()) -> bool:
    """Whether the last of these minutes fires while it is open."""
    last = START + (len(counts) - 1) * MINUTE
    return judge(series(counts, periods=periods), last + 20_000, last - GRACE).fires


def test_the_contract_stimulus_fires_before_its_last_headline() -> None:
    """Twenty negative stories in a minute after an hour with one each five minutes fire with some to spare."""
    assert [fires([*background(1), count]) for count in (4, 15, 20)] == [False, True, True]


def test_background_never_fires() -> None:
    """One story each five minutes never fires, from the first minute on."""
    counts = background(3)
    assert not any(fires(counts[: end + 1]) for end in range(len(counts)))


def test_an_unknown_entity_fires_at_the_least_number() -> None:
    """Five stories about an entity that was silent for an hour are a surge, four are none."""
    silent = [0] * 60
    assert [fires([*silent, 4]), fires([*silent, 5])] == [False, True]


@given(minutes)
def test_fewer_than_five_never_fire(counts: list[int]) -> None:
    """A window with fewer than five stories does not fire, whatever came before it."""
    quiet = [*counts, 1, 1, 0, 1, 1]
    assert not fires(quiet)


@given(minutes, st.integers(0, 30), st.integers(0, 30))
def test_more_stories_fire_sooner(counts: list[int], fewer: int, more: int) -> None:
    """What fires with some stories in the open minute fires with more."""
    low, high = sorted((fewer, more))
    assert fires([*counts, low]) <= fires([*counts, high])


@given(minutes)
def test_a_firing_window_holds_twice_what_was_expected(counts: list[int]) -> None:
    """A verdict that fires has at least five stories, twice the expected number, and a chance beyond the tail."""
    end = START + len(counts) * MINUTE
    verdict = judge(series(counts), end - 1, end - GRACE)
    mean, dispersion = verdict.expected
    if verdict.fires:
        assert verdict.value >= surge.LEAST
        assert verdict.value >= surge.RATIO * mean
        assert tail(verdict.value, mean, dispersion) < surge.TAIL


@given(st.integers(1, 60), st.floats(0.01, 30), st.floats(0.05, 3))
def test_tail_is_that_of_the_negative_binomial(count: int, mean: float, dispersion: float) -> None:
    """The upper tail is one less the sum of the probabilities below, and falls with the count."""
    below = 0.0
    probability = (1 + dispersion * mean) ** (-1 / dispersion)  # of none; each next by the recurrence
    for lower in range(count):
        below += probability
        probability *= (lower + 1 / dispersion) / (lower + 1) * dispersion * mean / (1 + dispersion * mean)
    assert math.isclose(tail(count, mean, dispersion), 1 - below, rel_tol=1e-6, abs_tol=1e-9)
    assert tail(count + 1, mean, dispersion) <= tail(count, mean, dispersion)


@given(st.floats(0.001, 200), st.floats(0.05, 3))
def test_the_firing_number_is_the_least(mean: float, dispersion: float) -> None:
    """One story fewer than the firing number breaks one of the three conditions."""
    count = fires_at(mean, dispersion)
    assert count >= max(surge.LEAST, surge.RATIO * mean)
    assert tail(count, mean, dispersion) < surge.TAIL
    below = count - 1
    assert below < surge.LEAST or below < surge.RATIO * mean or tail(below, mean, dispersion) >= surge.TAIL


def test_the_open_minute_feeds_no_baseline() -> None:
    """Buckets that the watermark has not closed do not count as usual."""
    counts = [0] * 30 + [9] * 5
    end = START + 35 * MINUTE
    closed = expectation(series(counts), end, end)
    open_ = expectation(series(counts), end, end - 5 * MINUTE)
    assert open_.mean < 0.5 < closed.mean


def test_what_is_not_known_is_no_zero() -> None:
    """Minutes before the stream began do not thin the baseline out."""
    counts = [0] * 300 + [1] * 60
    begun = START + 300 * MINUTE
    end = START + 360 * MINUTE
    full, thin = (
        Series(START, MINUTE, [0] * 300 + [2, 0] * 30, since).usual(START, end) for since in (begun, START)
    )
    assert (full, thin) == ((60, HOUR), (60, 6 * HOUR))
    assert rate_before(series(counts, begun), end, end) >= rate_before(series(counts), end, end)


def test_the_baseline_is_frozen_while_an_alert_fires() -> None:
    """Minutes of an incident are no part of what is usual, in its first hour; after it they are the new normal."""
    counts = [0] * 60 + [10] * 120
    incident = (Period(START + 60 * MINUTE, None),)
    usual = series(counts, periods=incident).usual(START, START + 180 * MINUTE)
    assert usual == (600, 2 * HOUR)
    assert not fires([*counts, 10], periods=incident)


def test_clears_only_by_closed_buckets() -> None:
    """A surge is over when five closed minutes hold little of it, and not before the watermark says so."""
    counts = [*background(1), 20, *[0] * 10]
    opened = START + 60 * MINUTE
    found = series(counts, periods=(Period(opened - 4 * MINUTE, None),))
    over = opened + 6 * MINUTE
    assert clears(found, opened, over - 1) is None
    cleared = clears(found, opened, over)
    assert cleared is not None
    assert (cleared.at, cleared.value) == (over, 0)
    assert clears(found, opened, over + 3 * MINUTE) == cleared


def test_hysteresis_keeps_an_alert_at_the_edge() -> None:
    """A number that would not fire, but is close to it, does not clear either."""
    counts = [*background(1), 20, *[2] * 20]
    opened = START + 60 * MINUTE
    found = series(counts, periods=(Period(opened - 4 * MINUTE, None),))
    assert clears(found, opened, found.end) is None


def test_a_new_normal_ends_the_alert() -> None:
    """An incident that goes on for hours at the same level resolves: the level is what is usual now."""
    counts = [*background(1), *[4] * 180]
    opened = START + 64 * MINUTE
    found = series(counts, periods=(Period(opened - 4 * MINUTE, None),))
    cleared = clears(found, opened, found.end)
    assert cleared is not None
    assert cleared.at > opened + surge.FREEZE


@pytest.mark.parametrize(("after", "again"), [([0, 0], False), ([2, 2], False), ([0, 20], True)])
def test_a_resolved_burst_does_not_fire_again(after: list[int], again: bool) -> None:
    """What an alert was resolved with counts no more; only as many new stories make a new incident."""
    counts = [*background(1), 20, 0, 0, 0, 0, 3]
    resolved = (Period(START + 56 * MINUTE, START + 66 * MINUTE),)
    assert fires([*counts, *after], periods=resolved) == again


@given(minutes, st.integers(0, 60))
def test_a_late_story_of_a_resolved_incident_does_not_fire(counts: list[int], late: int) -> None:
    """However many stories are added to minutes before the resolution, they raise no second alert."""
    resolved = START + len(counts) * MINUTE
    found = series([*counts[:-1], counts[-1] + late], periods=(Period(START, resolved),))
    assert not judge(found, resolved - 1, resolved).fires


@given(minutes, st.integers(-500, 500), st.integers(0, 500))
def test_totals_are_sums_of_the_minutes_inside(counts: list[int], first: int, length: int) -> None:
    """The total of a time is the sum of the buckets that start in it."""
    since, until = START + first * 20_000, START + (first + length) * 20_000
    inside = [count for index, count in enumerate(counts) if since <= START + index * MINUTE < until]
    assert series(counts).total(since, until) == sum(inside)


def test_severity_is_critical_from_twice_the_firing_number() -> None:
    """A window with twice the number that fires is critical, one below is not."""
    silent = [0] * 60
    at = START + 60 * MINUTE
    verdicts = [judge(series([*silent, count]), at, at - GRACE) for count in (9, 10)]
    assert [verdict.critical for verdict in verdicts] == [False, True]
