"""The surge rule: when negative stories about an entity are more than a bad five minutes explain, and when it is over.

Pure: counts and times in, verdicts out; times are milliseconds since 1970. Stories scatter more than a Poisson
process does (one event makes many outlets write), so the tail is that of a negative binomial: the predictive
distribution of a gamma-Poisson model, as in Hilbe, Negative Binomial Regression (2011), ch. 8, its dispersion by
moments and held by a prior. Freezing the baseline while an alert fires is how outbreak surveillance keeps an outbreak
from explaining itself (Noufaily et al., Statistics in Medicine 32, 2013). What it does not know: hours of the week.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from streams.windows.buckets import HOUR, MINUTE, start_of

WINDOW = 5 * MINUTE
MEMORY = 6 * HOUR  # the closed minutes that the expected number comes from
FREEZE = HOUR  # an alert that goes on for longer is no exception but the new normal
LEAST = 5  # negative stories in a window that can fire
RATIO = 2.0  # times the expected number
TAIL = 1e-5  # chance of a window as bad as this, when nothing happened
PRIOR_RATE = 0.02 / MINUTE  # stories a ms about an entity of which nothing is known, and
PRIOR_TIME = 30 * MINUTE  # how much observed time that belief is worth
PRIOR_DISPERSION = 0.5  # variance = mean + dispersion * mean squared, in five minutes
PRIOR_EVIDENCE = 20.0  # the sum of squared block means that the belief in it is worth
LEAST_DISPERSION = 0.2
CLEAR = 0.6  # of the number that fires: below it a closed window ends the alert
CRITICAL = 2.0  # times the number that fires


class Period(NamedTuple):
    """Time from the start of the window that fired until the end of the one that cleared; None while it fires."""

    start: int
    end: int | None


class Series:
    """Counts of one entity in consecutive buckets of one width, oldest first; empty buckets are zeros.

    Before `known_since` nothing is known (the stream had not begun, or its buckets are gone): those are no zeros.
    `periods` are the entity's surges: their first hour does not count as usual.
    """

    def __init__(
        self, start: int, width: int, counts: Sequence[int], known_since: int, periods: Iterable[Period] = ()
    ) -> None:
        self.start, self.width, self.known_since = start, width, known_since
        self.periods = tuple(periods)
        usual = [start + (index + 1) * width > known_since for index in range(len(counts))]
        for period in self.periods:
            end = period.start + FREEZE if period.end is None else min(period.end, period.start + FREEZE)
            first, last = ((time - start) // width for time in (period.start, end + width - 1))
            for index in range(max(first, 0), min(last, len(counts))):
                usual[index] = False
        self._sums = [0, *accumulate(counts)]
        self._usual_sums = [0, *accumulate(count * known for count, known in zip(counts, usual, strict=True))]
        self._usual_buckets = [0, *accumulate(usual)]

    @property
    def end(self) -> int:
        """The end of the last bucket."""
        return self.start + (len(self._sums) - 1) * self.width

    def total(self, since: int, until: int) -> int:
        """The sum of the buckets that start in this time."""
        first, last = self._index(since), self._index(until)
        return self._sums[max(first, last)] - self._sums[first]

    def usual(self, since: int, until: int) -> tuple[int, int]:
        """Count and observed time in ms of the buckets that start in this time, without unknown and frozen ones."""
        first, last = self._index(since), max(self._index(since), self._index(until))
        buckets = self._usual_buckets[last] - self._usual_buckets[first]
        return self._usual_sums[last] - self._usual_sums[first], buckets * self.width

    def _index(self, time: int) -> int:
        return min(max(-((self.start - time) // self.width), 0), len(self._sums) - 1)


class Expectation(NamedTuple):
    """What a window should hold: a negative binomial with this mean, variance mean + dispersion * mean squared."""

    mean: float
    dispersion: float

    @property
    def fires_at(self) -> int:
        """The least number of stories that fires: LEAST, RATIO times the mean, and beyond the tail."""
        return fires_at(self.mean, self.dispersion)


class Verdict(NamedTuple):
    """A window beside what was expected of it."""

    value: int
    expected: Expectation
    fires: bool

    @property
    def critical(self) -> bool:
        """Whether it holds twice the number that fires."""
        return self.value >= CRITICAL * self.expected.fires_at


class Cleared(NamedTuple):
    """The first closed window in which a surge was over; `at` is its end."""

    at: int
    value: int
    expected: Expectation


def judge(series: Series, time: int, closed_until: int) -> Verdict:
    """The five one-minute buckets that end with the one that holds `time`, open or not.

    What an earlier surge was resolved with does not count again: an incident is new only by new stories. While
    one fires there is no second, so nothing fires.
    """
    end = start_of(time, MINUTE) + MINUTE
    since = end - WINDOW
    expected = expectation(series, since, closed_until)
    value = series.total(since, end)
    ends = [period.end for period in series.periods]
    fresh = series.total(max([since, *(at for at in ends if at is not None)]), end)
    return Verdict(value, expected, None not in ends and fresh >= LEAST and fresh >= expected.fires_at)


def clears(series: Series, opened: int, closed_until: int) -> Cleared | None:
    """The first closed window after the minute `opened` that is clearly below what fires, or None.

    A pure function of closed buckets, so the answer does not depend on when it is asked.
    """
    first = max(start_of(opened, MINUTE) + MINUTE, series.start + WINDOW)
    for end in range(first, min(start_of(closed_until, MINUTE), series.end) + 1, MINUTE):
        value = series.total(end - WINDOW, end)
        expected = expectation(series, end - WINDOW, closed_until)
        if value < CLEAR * expected.fires_at:
            return Cleared(end, value, expected)
    return None


def expectation(series: Series, start: int, closed_until: int) -> Expectation:
    """What the window that starts at `start` should hold, by the closed buckets of the six hours before it."""
    rate = rate_before(series, start, closed_until)
    blocks = []
    last = start_of(min(start, closed_until), series.width) - WINDOW
    for since in range(last, start - MEMORY - 1, -WINDOW):
        count, observed = series.usual(since, since + WINDOW)
        if observed == WINDOW:
            blocks.append(count)
    return Expectation(rate * WINDOW, _dispersion(blocks))


def rate_before(series: Series, start: int, closed_until: int, memory: int = MEMORY) -> float:
    """Stories a ms by the closed buckets in `memory` before `start`; more where the last sixth of it was livelier.

    Both are posterior means under a gamma prior: the whole under that of an entity nobody knows, the last sixth (an
    hour of six) under the whole, so that a rising day does not look like a surge and one lively bucket not like a day.
    """
    until = start_of(min(start, closed_until), series.width)
    count, observed = series.usual(start - memory, until)
    rate = (count + PRIOR_RATE * PRIOR_TIME) / (observed + PRIOR_TIME)
    count, observed = series.usual(start - memory // 6, until)
    return max(rate, (count + rate * PRIOR_TIME) / (observed + PRIOR_TIME))


@lru_cache(maxsize=10_000)
def fires_at(mean: float, dispersion: float) -> int:
    """The least count that is at least LEAST, at least RATIO times the mean, and less likely than TAIL."""
    count = max(LEAST, math.ceil(RATIO * mean))
    step = 1
    while tail(count + step, mean, dispersion) >= TAIL:
        step *= 2
    low, high = count - 1, count + step  # the tail falls with the count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tail(middle, mean, dispersion) < TAIL else (middle, high)
    return high


def tail(count: int, mean: float, dispersion: float) -> float:
    """P(X >= count) of a negative binomial with this mean and variance mean + dispersion * mean squared.

    Summed from `count` upwards, so that small chances keep their digits. Mean and dispersion are above 0.
    """
    size = 1 / dispersion
    odds = mean / (mean + size)
    log_p = math.lgamma(count + size) - math.lgamma(size) - math.lgamma(count + 1)
    term = math.exp(log_p + size * math.log1p(-odds) + count * math.log(odds))
    total = 0.0
    while True:
        total += term
        ratio = odds * (count + size) / (count + 1)
        if ratio < 1 and term * ratio <= (1 - ratio) * total * 1e-7:
            return min(total, 1.0)
        term *= ratio
        count += 1


def _dispersion(blocks: Sequence[int]) -> float:
    """By moments: the variance beyond Poisson's over the squared mean, drawn to the prior where means are small."""
    if not blocks:
        return PRIOR_DISPERSION
    mean = sum(blocks) / len(blocks)
    beyond = sum((count - mean) ** 2 - count for count in blocks)
    weight = len(blocks) * mean**2
    found = (beyond + PRIOR_DISPERSION * PRIOR_EVIDENCE) / (weight + PRIOR_EVIDENCE)
    return max(found, LEAST_DISPERSION)
