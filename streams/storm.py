"""The guard against decline storms: a rule that suddenly hits a large share of the traffic is suspended. Pure.

A rule is written once and meets traffic that nobody foresaw: a new currency, a zero where none was, a feature that
broke upstream. Then it declines everybody. So the share that each rule hits is watched over the shortest time that
holds enough records; a rule that hits more than it may, and far more than it usually does, no longer decides until its
share has been half of that for a while. It is matched all the while, so that its return is by evidence. The clock is an
argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST = 300  # seconds that are looked back at
SHORTEST = 5  # seconds that a share is measured over at least
ENOUGH = 200  # records that a share is measured on at least
SUDDEN = 5.0  # times the usual share
SUSPENDED = 60.0  # seconds that a rule is suspended at least
PRIOR_SHARE, PRIOR_RECORDS = (
    0.02,
    500.0,
)  # what a rule nobody knows usually hits, and how many records that is worth
MEMORY = 50_000.0  # records that the usual share looks back at, about


class Change(NamedTuple):
    """A rule was suspended, or decides again; shares from 0 to 1."""

    rule: str
    suspended: bool
    share: float
    usual: float


@dataclass
class _Second:
    """Counts since the guard began, at the end of this second."""

    at: int
    total: int = 0
    hits: dict[str, int] = field(default_factory=dict)


@dataclass
class _Watch:
    hits: float = PRIOR_SHARE * PRIOR_RECORDS
    records: float = PRIOR_RECORDS
    suspended_at: float | None = None
    share: float = 0.0

    @property
    def usual(self) -> float:
        return self.hits / self.records


class StormGuard:
    """Watches the rules of one worker."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque([_Second(0)])
        self._rules: dict[str, _Watch] = {}

    @property
    def suspended(self) -> frozenset[str]:
        """The rules that do not decide now."""
        return frozenset(name for name, watch in self._rules.items() if watch.suspended_at is not None)

    def shares(self, rule: str) -> tuple[float, float]:
        """What the rule hits now, and what it usually does."""
        watch = self._rules.get(rule, _Watch())
        return watch.share, watch.usual

    def observe(
        self, now: float, total: int, hits: Mapping[str, int], most: Mapping[str, float]
    ) -> list[Change]:
        """Count a batch of `total` records of which each rule hit so many, at a time in seconds; what changed by it.

        `most` is the share that each rule may hit; rules that it lacks are forgotten.
        """
        second = int(now)
        if self._seconds[-1].at < second:
            before = self._seconds[-1]
            self._seconds.append(_Second(second, before.total, dict(before.hits)))
        newest = self._seconds[-1]
        newest.total += total
        for rule, count in hits.items():
            newest.hits[rule] = newest.hits.get(rule, 0) + count
        while len(self._seconds) > 1 and self._seconds[0].at < newest.at - LONGEST:
            self._learn(self._seconds.popleft(), self._seconds[0])
        self._rules = {rule: self._rules.get(rule, _Watch()) for rule in most}
        start = self._start()
        found = (self._judge(rule, watch, start, now, most[rule]) for rule, watch in self._rules.items())
        return [change for change in found if change is not None]

    def _judge(self, rule: str, watch: _Watch, start: _Second, now: float, most: float) -> Change | None:
        newest = self._seconds[-1]
        total = newest.total - start.total
        hits = newest.hits.get(rule, 0) - start.hits.get(rule, 0)
        watch.share = hits / total if total else 0.0
        if watch.suspended_at is None:
            if total >= ENOUGH and most < 1 and watch.share >= max(most, SUDDEN * watch.usual):
                watch.suspended_at = now
                return Change(rule, True, watch.share, watch.usual)
        elif now - watch.suspended_at >= SUSPENDED and (most >= 1 or watch.share < most / 2):
            watch.suspended_at = None
            return Change(rule, False, watch.share, watch.usual)
        return None

    def _start(self) -> _Second:
        """What the shortest time that is long enough and holds enough began with."""
        newest = self._seconds[-1]
        for second in reversed(self._seconds):
            if newest.total - second.total >= ENOUGH and newest.at - second.at >= SHORTEST:
                return second
        return self._seconds[0]

    def _learn(self, before: _Second, after: _Second) -> None:
        """What is older than anything that is watched becomes part of the usual; a storm does not."""
        total = after.total - before.total
        for rule, watch in self._rules.items():
            if watch.suspended_at is None:
                fade = max(0.0, 1.0 - total / MEMORY)
                watch.hits = watch.hits * fade + after.hits.get(rule, 0) - before.hits.get(rule, 0)
                watch.records = watch.records * fade + total
