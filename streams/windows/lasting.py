"""The rule for what lasts: an alert fires with the first signal that says so, and is over when none has for a while.

Pure: counts and times in, verdicts out; times are milliseconds since 1970. Who signals repeats it as long as it goes
on, so silence means that it is over, or that who said it is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.windows.buckets import MINUTE, start_of
from streams.windows.surge import Cleared, Expectation, Series

QUIET = 3 * MINUTE  # closed minutes without a signal that end it
NOTHING = Expectation(0.0, 0.0)


class Verdict(NamedTuple):
    """Whether a signal in the minute makes an alert."""

    value: int
    expected: Expectation
    fires: bool
    critical: bool = True


def judge(series: Series, time: int, closed_until: int) -> Verdict:  # noqa: ARG001 - as of every rule
    """The minute that holds `time`: any signal fires, unless an alert is active or the minute was resolved with."""
    start = start_of(time, MINUTE)
    value = series.total(start, start + MINUTE)
    ends = [period.end for period in series.periods]
    over = max((end for end in ends if end is not None), default=0)
    return Verdict(value, NOTHING, value > 0 and None not in ends and start >= over)


def clears(series: Series, opened: int, closed_until: int) -> Cleared | None:
    """The first end of so many closed minutes without a signal after the minute `opened`, or None."""
    first = start_of(opened, MINUTE) + MINUTE + QUIET
    for end in range(first, min(start_of(closed_until, MINUTE), series.end) + 1, MINUTE):
        if series.total(end - QUIET, end) == 0:
            return Cleared(end, 0, NOTHING)
    return None
