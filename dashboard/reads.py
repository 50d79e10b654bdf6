"""One read a second for all viewers, and the last values while the store is away.

Knows no Streamlit: a page asks `Reads.get` each second, whoever comes first reads, the others are given the same. A
viewer never waits for another's read but for the very first one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from streams.settings import Settings
from streams.state import views
from streams.state.store import Refused, Store, Unavailable

TTL = 0.9  # seconds; pages ask each second
MOST = 64  # readings that are kept
RATES = 300  # samples of rate and lag, about one a second
MOVE_EVERY = 2.0  # seconds between two looks at all entities, the one dear read
REORDER = 20.0  # seconds that the movers keep their order, unless one moves far
MOVERS = 13  # entities that move, shown
FAR = 3.0  # standard deviations above the usual that bring an entity in at once
TIMEOUT = 1.0  # seconds that a read may take before the store counts as away

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """A value, when it was read, and since when the store has been away (unix seconds); `value` None: never read."""

    value: T | None
    read_at: float = 0.0
    away_since: float | None = None
    reason: str = ""


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.read_at = 0.0
        self.tried_at = 0.0


class Reads:
    """The readings of one process."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._guard = threading.Lock()
        self._away_since: float | None = None
        self._failed_at = 0.0
        self._reason = ""
        self._moving: list[views.Mover] = []
        self._moved_at = 0.0
        self._order: list[str] = []
        self._ordered_at = 0.0
        self.history: deque[tuple[float, float, int]] = deque(maxlen=RATES)  # time, rate, lag of news
        self.paid: deque[tuple[float, float, int]] = deque(maxlen=RATES)  # of payments

    @classmethod
    def open(cls, settings: Settings) -> Reads:
        """Reads from the store of these settings; it need not be there yet."""
        return cls(Store(settings.redis, settings.prefix, timeout=TIMEOUT))

    @property
    def place(self) -> str:
        """Where the store is, without user or password."""
        parts = urlsplit(self.store.url)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path

    def get(self, key: Hashable, load: Callable[[Store, float], T]) -> Reading[T]:
        """What `load(store, now)` gave at most a second ago, or the last that it gave while the store is away."""
        slot, now = self._slot(key), self._clock()
        first = slot.value is None and slot.tried_at == 0.0
        if now - slot.tried_at >= TTL and slot.lock.acquire(blocking=first):
            try:
                if self._clock() - slot.tried_at >= TTL:
                    self._refresh(slot, load)
            finally:
                slot.lock.release()
        return Reading(cast("T | None", slot.value), slot.read_at, self._away_since, self._reason)

    def overview(self) -> Reading[views.Overview]:
        """What every page shows."""
        return self.get("overview", self._overview)

    def _overview(self, store: Store, now: float) -> views.Overview:
        if now - self._moved_at >= MOVE_EVERY:
            self._moving, self._moved_at = views.movers(store, now), now
        found = views.overview(store, now, self._moving)
        kept = ranked(found.movers, self._order) if now - self._ordered_at < REORDER else []
        if not kept:
            kept, self._ordered_at = found.movers[:MOVERS], now
            self._order = [mover.entity for mover in kept]
        found = replace(found, movers=kept)
        for rates, name in ((self.history, "news"), (self.paid, "transactions")):
            workers = found.health.of(name)
            rate, behind = sum(worker.rate for worker in workers), sum(worker.behind for worker in workers)
            rates.append((now, rate, behind))
        return found

    def _refresh(self, slot: _Slot, load: Callable[[Store, float], T]) -> None:
        now = self._clock()
        slot.tried_at = now
        if self._away_since is not None and now - self._failed_at < TTL:
            return  # another reading has just found the store away
        try:
            slot.value = load(self.store, now)
        except (Unavailable, Refused) as error:
            self._failed_at, self._reason = self._clock(), str(error)
            self._away_since = self._away_since or now
        else:
            slot.read_at, self._away_since = now, None

    def _slot(self, key: Hashable) -> _Slot:
        with self._guard:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > MOST:
                self._slots.popitem(last=False)
            return slot


def ranked(found: Sequence[views.Mover], order: Sequence[str], most: int = MOVERS) -> list[views.Mover]:
    """The movers in an order of before, so that rows do not jump; empty when it has to be made anew.

    It has to when one of them is gone, or one that is not among them moves far.
    """
    known = {mover.entity: mover for mover in found}
    fresh = {mover.entity for mover in found[:most] if mover.surprise >= FAR}
    if len(order) < min(most, len(found)) or not known.keys() >= set(order) or not fresh <= set(order):
        return []
    return [known[entity] for entity in order]
