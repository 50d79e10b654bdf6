"""What is asked for now: how often each item was met within spans before `now`, and what that says of its trend.

Trends are ratios of a recent span to all time, so that a ranker trained on one month does not learn that month's
levels of demand. Words have trends too: a title of words that are asked for ever more may be new itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.recommending.knowledge import Floats, Ints, Knowledge, Neighbours

SPANS = (3.0, 7.0, 14.0, 30.0, 60.0, 1e6)  # days
FRESH = 30.0  # days since its first interaction within which an item is new
LONGEST = 120.0  # days since the first interaction that are told apart
IDLE = 60.0  # days without interaction that are told apart


class Demand(NamedTuple):
    """Of n items: `counts` [spans, n] of interactions, days since the first and the last interaction."""

    counts: Floats
    first: Floats
    last: Floats

    def span(self, days: float) -> Floats:
        """The counts of one of SPANS."""
        return np.asarray(self.counts[SPANS.index(days)])


def demand(items: Ints, days: NDArray[np.float64], now: float, n: int) -> Demand:
    """The demand at `now` (days since 1970) out of the interactions before it; each counts."""
    before = days < now
    ages = (now - np.floor(days[before]) - 0.5).astype(np.float32)
    return of_days(items[before], ages, np.ones(len(ages), np.float32), n)


def of_days(items: Ints, ages: Floats, counts: Floats, n: int) -> Demand:
    """The demand out of counts a day: `items[i]` was met `counts[i]` times, `ages[i]` days ago."""
    spans = [np.bincount(items[ages <= span], counts[ages <= span], n) for span in SPANS]
    first, last = np.zeros(n, np.float32), np.full(n, 1e6, np.float32)
    np.maximum.at(first, items, ages)
    np.minimum.at(last, items, ages)
    return Demand(np.array(spans, np.float32), first, last)


class Trends(NamedTuple):
    """What a ranker may know of the items themselves: `columns` [n, k] by `names`, and factors for scores."""

    names: tuple[str, ...]
    columns: Floats
    factor: Floats  # recent over all-time demand, two weeks
    month: Floats  # the same, a month
    fresh: NDArray[np.bool_]
    popularity: Floats  # demand of two weeks over its largest


def trends(now: Demand, knowledge: Knowledge, similar: Neighbours) -> Trends:
    """The trends of all items; `similar` are items with like titles."""
    week, fortnight, month = (now.span(days) for days in (7.0, 14.0, 30.0))
    ever = now.span(SPANS[-1])
    factor = {days: (now.span(days) + 1) / (ever + 5) for days in (7.0, 14.0, 30.0)}
    log = {days: np.log(ratio) for days, ratio in factor.items()}
    columns = {
        "trend.7": log[7.0],
        "trend.14": log[14.0],
        "trend.30": log[30.0],
        "speed.7/30": np.log((week * 30 / 7 + 2) / (month + 2)),
        "speed.3/14": np.log((now.span(3.0) * 14 / 3 + 2) / (fortnight + 2)),
        "speed.14/60": np.log((fortnight * 60 / 14 + 2) / (now.span(60.0) + 2)),
        "age": np.minimum(now.first, LONGEST),
        "idle": np.minimum(now.last, IDLE),
        "words.14": _words(fortnight, ever, knowledge),
        "words.30": _words(month, ever, knowledge),
        "bought-with.14": _neighbours(log[14.0], knowledge.cosine),
        "bought-with.30": _neighbours(log[30.0], knowledge.cosine),
        "like.14": _neighbours(log[14.0], similar),
        "like.30": _neighbours(log[30.0], similar),
    }
    return Trends(
        tuple(columns),
        np.stack(list(columns.values()), axis=1).astype(np.float32),
        factor[14.0],
        factor[30.0],
        (now.first <= FRESH) & (ever > 0),
        fortnight / max(1.0, float(fortnight.max(initial=0))),
    )


def _words(recent: Floats, ever: Floats, knowledge: Knowledge) -> Floats:
    """The mean trend of the words of each title, against the trend of all words."""
    rows = np.repeat(np.arange(len(knowledge.text.starts) - 1), np.diff(knowledge.text.starts))
    columns, width = knowledge.text.columns, len(knowledge.words)
    if not width:
        return np.zeros(len(recent), np.float32)
    a, b = (np.bincount(columns, counts[rows], width) for counts in (recent, ever))
    trend = np.log((a + 1) / (b + 5) * (max(1.0, b.sum()) / max(1.0, a.sum())))
    total = np.bincount(rows, trend[columns], len(recent))
    return np.asarray(total / np.maximum(1, np.bincount(rows, minlength=len(recent))), np.float32)


def _neighbours(values: Floats, table: Neighbours) -> Floats:
    """The mean of a value over an item's neighbours, by their weights."""
    weights = np.maximum(table.weights, 0)
    total = (weights * values[table.items]).sum(axis=1)
    return np.asarray(total / (weights.sum(axis=1) + 1e-9), np.float32)


def ranks(values: Sequence[float] | Floats) -> Floats:
    """The place of each value among all, 0..1, ties in their order."""
    order = np.argsort(np.asarray(values), kind="stable")
    made = np.empty(len(order), np.float32)
    made[order] = np.arange(len(order), dtype=np.float32) / max(1, len(order) - 1)
    return made
