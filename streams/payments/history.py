"""What is known of one account or one terminal: its payments and the frauds among them, for exact sliding windows.

Pure and incremental; training, serving and tests run the same code. A history is fed in the order of arrival (the
order of the key's log in the store) and asked about a time: what had arrived, and happened at that time or before. A
window of length w that ends at t holds what happened in (t - w, t].

Times are milliseconds since 1970, amounts whole cents of the reference currency, both integers, so every figure is
exact whatever the order. What happened RETAIN before the newest payment of the key, or earlier, is not seen by any
window any more, so it may be dropped. A payment that comes more than SLACK late so sees shortened windows.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOUR = 3_600_000
DAY = 24 * HOUR
LONGEST = 90 * DAY  # of a window
RETAIN = (
    120 * DAY
)  # what is kept: a month more than the longest window, for what is derived per payment and for late ones
SLACK = RETAIN - LONGEST
TRIM_EVERY = 64  # payments between two looks whether a quarter of a history has expired
RUN = 64  # frauds in a row at one terminal that are told apart
NONE = -(1 << 62)  # a time before all others
UNUSUAL = 3  # times the usual amount
SHRINK = 32  # payments over which the usual amount is averaged (exponentially, once there are as many)


class History:
    """The payments of one key in order of time, with what makes windows cheap.

    `sums[i]` is the sum of the first i payments that were ever held (differences are what counts), `flags[i]` how
    many of them were unusual. `peaks` holds each payment that is larger than all later ones: the maximum of what
    follows a time is the first of them after it.
    """

    __slots__ = (
        "amounts",
        "flags",
        "fraud_known",
        "fraud_times",
        "newest",
        "peak_times",
        "peaks",
        "sums",
        "times",
        "unchecked",
    )

    def __init__(self) -> None:
        self.times: list[int] = []
        self.amounts: list[int] = []
        self.sums: list[int] = [0]
        self.flags: list[int] = [0]
        self.peak_times: list[int] = []
        self.peaks: list[int] = []
        self.fraud_times: list[int] = []  # when the fraudulent payments happened, sorted
        self.fraud_known: list[int] = []  # and when each was known
        self.newest = 0
        self.unchecked = 0

    def add(self, time: int, amount: int, flag: int) -> None:
        """Take a payment in."""
        times, sums, flags = self.times, self.sums, self.flags
        if time >= self.newest:
            self.newest = time
            times.append(time)
            self.amounts.append(amount)
            sums.append(sums[-1] + amount)
            flags.append(flags[-1] + flag)
            peaks, peak_times = self.peaks, self.peak_times
            while peaks and peaks[-1] <= amount:
                peaks.pop()
                peak_times.pop()
            peaks.append(amount)
            peak_times.append(time)
        else:
            self._insert(time, amount, flag)
        self.unchecked += 1
        if self.unchecked >= TRIM_EVERY:
            self.unchecked = 0
            self._trim()

    def add_fraud(self, time: int, known: int) -> None:
        """Take in that the payment of this time was a fraud, known from `known` on."""
        place = bisect_right(self.fraud_times, time)
        self.fraud_times.insert(place, time)
        self.fraud_known.insert(place, known)

    def remove_fraud(self, time: int) -> None:
        """The payment of this time was no fraud after all."""
        place = bisect_right(self.fraud_times, time) - 1
        if place >= 0 and self.fraud_times[place] == time:
            del self.fraud_times[place], self.fraud_known[place]

    def frauds(self, after: int, until: int, now: int) -> int:
        """Frauds that happened in (after, until] and were known at `now`."""
        low = bisect_right(self.fraud_times, max(after, self.newest - RETAIN))
        high = bisect_right(self.fraud_times, until)
        return sum(known <= now for known in self.fraud_known[low:high])

    def run(self, until: int, now: int) -> tuple[int, int, int, int]:
        """How the payments that happened until then end: the last honest one, and the frauds after it.

        Returns (the honest one's time, that of the first fraud after it, that of the first of them which was not
        unusual, how many frauds); NONE where there is no such payment. Honest is what is not known as a fraud at `now`.
        At most RUN frauds are looked at: where all of them are frauds the honest one is older than the first.
        """
        times, flags = self.times, self.flags
        at, place = bisect_right(times, until) - 1, bisect_right(self.fraud_times, until) - 1
        first = usual = NONE
        count, floor = 0, self.newest - RETAIN
        while at >= 0 and count < RUN and times[at] > floor:
            while place >= 0 and (
                self.fraud_times[place] > times[at] or self.fraud_known[place] > now
            ):  # its payment has expired or never came, or nobody knows of it yet
                place -= 1
            if place < 0 or self.fraud_times[place] != times[at]:
                return times[at], first, usual, count
            first, count = times[at], count + 1
            if flags[at + 1] == flags[at]:
                usual = times[at]
            at, place = at - 1, place - 1
        return NONE, first, usual, count

    def peak(self, low: int, high: int, edge: int) -> int:
        """The largest of the payments `low` to `high` (excluded), 0 of none; `low` is the first one after `edge`."""
        if low >= high:
            return 0
        place = bisect_right(self.peak_times, edge)
        if high == len(self.times) or self.peak_times[place] <= self.times[high - 1]:
            return self.peaks[place]
        return max(self.amounts[low:high])  # a late question, and a larger payment came after it

    def load(self, times: NDArray[Any], amounts: NDArray[Any], flags: NDArray[Any]) -> None:
        """Take many payments into an empty history at once; arrays [n] in order of arrival."""
        order = np.argsort(times, kind="stable")
        times, amounts = times[order], amounts[order]
        self.times, self.amounts = times.tolist(), amounts.tolist()
        self.sums = [0, *np.cumsum(amounts).tolist()]
        self.flags = [0, *np.cumsum(flags[order].astype(np.int64)).tolist()]
        if not len(times):
            return
        self.newest = self.times[-1]
        later = np.maximum.accumulate(amounts[::-1])[::-1]
        tops = np.flatnonzero(np.append(amounts[:-1] > later[1:], True))
        self.peak_times, self.peaks = times[tops].tolist(), amounts[tops].tolist()
        self._trim()

    def _insert(self, time: int, amount: int, flag: int) -> None:
        place = bisect_right(self.times, time)
        self.times.insert(place, time)
        self.amounts.insert(place, amount)
        self.sums[place:] = accumulate(self.amounts[place:], initial=self.sums[place])
        self.flags[place + 1 :] = [self.flags[place] + flag] + [
            before + flag for before in self.flags[place + 1 :]
        ]
        at = bisect_right(self.peak_times, time)
        if at < len(self.peaks) and self.peaks[at] >= amount:
            return
        start = at
        while start and self.peaks[start - 1] <= amount:
            start -= 1
        self.peaks[start:at] = [amount]
        self.peak_times[start:at] = [time]

    def _trim(self) -> int:
        """Drop what has expired once that is a quarter; returns the time up to which all is gone, 0 for nothing."""
        if not self.times or self.times[0] > self.newest - RETAIN:
            return 0
        floor = self.newest - RETAIN
        gone = bisect_right(self.times, floor)
        if 4 * gone < len(self.times):
            return 0
        del self.times[:gone], self.amounts[:gone], self.sums[:gone], self.flags[:gone]
        top = bisect_right(self.peak_times, floor)
        del self.peak_times[:top], self.peaks[:top]
        old = bisect_right(self.fraud_times, floor)
        del self.fraud_times[:old], self.fraud_known[:old]
        return floor


class AccountHistory(History):
    """A history that also knows the account's habits: usual amount, terminals, countries, hours, its last steps."""

    __slots__ = ("count", "last", "seen", "step_times", "steps", "usual")

    def __init__(self) -> None:
        super().__init__()
        self.usual = 0  # cents
        self.count = 0  # payments behind it, at most SHRINK
        self.last = 0  # the time of the payment that arrived last
        self.seen: dict[int, int] = {}  # terminal, country or part of the day (see features) -> newest time
        self.steps: list[bytes] = []  # of the last payments, see features.py
        self.step_times: list[int] = []

    def _trim(self) -> int:
        floor = super()._trim()
        if floor:
            self.seen = {key: time for key, time in self.seen.items() if time > floor}
        return floor


def usual_before(usual: int, count: int, last: int, time: int) -> tuple[int, int]:
    """The usual amount as a payment of this time finds it: nothing, after an account was idle for RETAIN."""
    return (usual, count) if time - last <= RETAIN else (0, 0)


def usual_after(usual: int, count: int, amount: int) -> tuple[int, int]:
    """The usual amount, and the payments behind it, after one more.

    A mean that forgets, and that a large payment moves no further than UNUSUAL times itself: a thief's spending is
    not learnt at once (winsorised exponential smoothing). Whole cents, computed the same way in payments.lua.
    """
    count = min(count + 1, SHRINK)
    bounded = max(0, min(amount, 2**32 - 1 if count == 1 else UNUSUAL * max(usual, 100)))
    return min(2**32 - 1, (usual * (count - 1) + bounded) // count), count


def exceeds(usual: int, count: int, amount: int) -> int:
    """Whether a payment lies far above the usual amount of its account (0 or 1), as payments.lua computes it too."""
    return 1 if count and amount > UNUSUAL * usual else 0
