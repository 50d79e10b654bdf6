"""What a worker of the recommendations keeps in memory: the catalogue, the demand, and how a customer's list is made.

Pure but for being changed: the store's content is handed in, nothing is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.recommending.catalogue import padded, untrained, with_items
from streams.recommending.demand import SPANS, Demand, demand, of_days
from streams.recommending.knowledge import Floats, History, Knowledge
from streams.recommending.rank import Ranker, recommend
from streams.recommending.reasons import reasons
from streams.recommending.scores import Shelf, like, shelf

DAY_MS = 86_400_000
STRANGER = History(np.zeros(0, np.int32), np.zeros(0, np.float32), 0)


class Met(NamedTuple):
    """An item of a customer: its latest interaction in ms, whether it is owned or dismissed."""

    at: int
    owned: bool
    dismissed: bool


class Shown(NamedTuple):
    """One place of a list."""

    item: str
    score: float
    reason: str


class Asked(NamedTuple):
    """Demand as the store counts it: day -> item -> interactions, in all, and the ms of each item's first one."""

    days: Mapping[int, Mapping[str, int]]
    ever: Mapping[str, int]
    first: Mapping[str, int]


def may_show(item: str, met: Mapping[str, Met], active: Callable[[str], bool]) -> bool:
    """Whether an item may be in a customer's list. The one place where further business rules belong."""
    mine = met.get(item)
    return active(item) and not (mine is not None and (mine.owned or mine.dismissed))


def read_met(fields: Iterable[tuple[str, str]]) -> dict[str, Met]:
    """A customer's hash as recommendations.lua writes it."""
    made = {}
    for item, text in fields:
        at, _, flags = text.partition(":")
        made[item] = Met(int(at), "o" in flags, "d" in flags)
    return made


class Room:
    """The items by name, and everything that lists are made of."""

    def __init__(
        self,
        knowledge: Knowledge | None = None,
        ranker: Ranker | None = None,
        *,
        pace: float = 1.0,
        diversity: float = 0.1,
    ) -> None:
        self._trained = knowledge or untrained()
        self._ranker, self._pace, self._diversity = ranker, pace, diversity
        self._names = list(self._trained.names)
        self._titles = list(self._trained.titles)
        self._number = {name: index for index, name in enumerate(self._names)}
        self._own = {name: index for index, name in enumerate(self._trained.customer_names)}
        self._near = like(self._trained)
        self._before = _trained_demand(self._trained)
        self._inactive: set[str] = set()
        self._asked = Asked({}, {}, {})
        self._ready: Shelf | None = None

    def put(self, item: str, title: str, active: bool) -> None:
        """A catalogue record: the item is recommendable from now on, or no longer."""
        (self._inactive.discard if active else self._inactive.add)(item)
        number = self._number.get(item)
        if number is None:
            self._number[item] = len(self._names)
            self._names.append(item)
            self._titles.append(title)
            self._ready = None
        elif self._titles[number] != title:
            self._titles[number] = title
            self._ready = None

    def know(self, items: Iterable[str]) -> None:
        """Items that somebody met; those of which no catalogue record came have no title."""
        for item in items:
            if item not in self._number:
                self.put(item, "", active=True)

    def ask(self, asked: Asked) -> None:
        """New counts of what is asked for."""
        self.know(asked.ever)
        self._asked = asked
        self._ready = None

    def active(self, item: str) -> bool:
        """Whether the catalogue has not taken the item back."""
        return item not in self._inactive

    def list_for(self, customer: str, met: Mapping[str, Met], now: float, k: int) -> list[Shown]:
        """At most k items for a customer, the best first, each with its reason; `now` in seconds."""
        self.know(met)
        ready = self._shelf(now)
        if not self._names:
            return []
        history = self._history(met, now)
        found = recommend(
            ready,
            self._ranker,
            history,
            self._blocked(met),
            k,
            own=self._own.get(customer, -1),
            diversity=self._diversity,
        )
        why = reasons(ready, history, found)
        pairs = zip(found.items, found.scores, why, strict=True)
        return [Shown(self._names[item], round(float(score), 4), reason) for item, score, reason in pairs]

    def _blocked(self, met: Mapping[str, Met]) -> NDArray[np.bool_]:
        """A list is of items new to the customer, as the ranker was trained; and of none that may not be shown."""
        blocked = np.zeros(len(self._names), np.bool_)
        blocked[[self._number[item] for item in (*met, *self._inactive)]] = True
        return blocked

    def _history(self, met: Mapping[str, Met], now: float) -> History:
        liked = {item: mine for item, mine in met.items() if not mine.dismissed}
        if not liked:
            return STRANGER
        items = np.array([self._number[item] for item in liked], np.int32)
        at = np.array([mine.at for mine in liked.values()], np.float64)
        ages = np.maximum((now * 1000 - at) / DAY_MS * self._pace, 1e-4).astype(np.float32)
        return History(items, ages, len({mine.at // DAY_MS for mine in liked.values()}))

    def _shelf(self, now: float) -> Shelf:
        if self._ready is None:
            knowledge = with_items(self._trained, self._names, self._titles)
            near = padded(self._near, len(self._names) - len(self._trained.names))
            self._ready = shelf(knowledge, self._demand(now), near)
        return self._ready

    def _demand(self, now: float) -> Demand:
        """What the stream counted; while that is less than a month of the training data had, that month is added."""
        n, today = len(self._names), now * 1000 / DAY_MS
        rows = [
            (self._number[item], (today - day - 0.5) * self._pace, count)
            for day, items in self._asked.days.items()
            for item, count in items.items()
            if item in self._number
        ]
        items, ages, counts = (
            (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 3
        )
        live = of_days(items.astype(np.int32), ages.astype(np.float32), counts.astype(np.float32), n)
        ever, first = np.zeros(n, np.float32), live.first.copy()
        for item, count in self._asked.ever.items():
            ever[self._number[item]] = count
        for item, at in self._asked.first.items():
            first[self._number[item]] = (today - at / DAY_MS) * self._pace
        spans, before = live.counts.copy(), _longer(self._before, n)
        spans[-1] = np.maximum(ever, spans[-1])
        month = SPANS.index(30.0)
        if spans[month].sum() < before.counts[month].sum():
            return Demand(
                spans + before.counts, np.maximum(first, before.first), np.minimum(live.last, before.last)
            )
        spans[-1] += before.counts[-1]
        return Demand(spans, np.maximum(first, before.first), live.last)


def _trained_demand(knowledge: Knowledge) -> Demand:
    """The demand at the end of the training data, out of its customers' latest interactions."""
    rows = knowledge.customers
    return demand(rows.columns, -rows.values.astype(np.float64), 0.0, len(knowledge.names))


def _longer(before: Demand, n: int) -> Demand:
    def grown(values: Floats, fill: float) -> Floats:
        more = np.full((*values.shape[:-1], n - values.shape[-1]), fill, np.float32)
        return np.concatenate([values, more], axis=-1)

    return Demand(grown(before.counts, 0), grown(before.first, 0), grown(before.last, 1e6))
