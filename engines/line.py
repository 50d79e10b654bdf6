"""The line of work in front of an engine: which items run together next. No threads and no clock.

Items stand by length bucket, because a batch costs its longest text for every row. The oldest item of the class that
is due decides the bucket, and others of its bucket fill the batch. Live work goes before backfill; of eight batches in
a row one is backfill's, so that neither waits for ever. Items of one key (and class) run in order, one at a time.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

IN_A_ROW = 7  # live batches while backfill waits, before one of backfill


class Priority(IntEnum):
    """Whose work goes first: somebody waits for a live answer, nobody for a backfill's."""

    LIVE = 0
    BACKFILL = 1


@dataclass(eq=False, slots=True)
class Entry:
    """One item in the line: `size` in tokens; `work` belongs to the caller."""

    size: int
    priority: Priority
    key: Hashable | None
    work: Any = None
    number: int = field(default=-1)  # of arrival
    waiting: bool = field(default=False)

    def __lt__(self, other: Entry) -> bool:
        return self.number < other.number


class Line:
    """At most `capacity` entries, of which backfill has no more than half: it cannot shut live work out."""

    def __init__(self, buckets: Sequence[int], rows: int, tokens: int, capacity: int) -> None:
        self._bounds = sorted(buckets)
        self._rows, self._tokens = rows, tokens
        self._capacity = {Priority.LIVE: capacity, Priority.BACKFILL: max(1, capacity // 2)}
        self._heaps: dict[Priority, list[list[Entry]]] = {
            priority: [[] for _ in range(len(self._bounds) + 1)] for priority in Priority
        }
        self._chains: dict[tuple[Priority, Hashable], deque[Entry]] = {}  # the first may run or runs
        self._held = dict.fromkeys(Priority, 0)
        self._arrived = 0
        self._in_a_row = 0

    def __len__(self) -> int:
        return sum(self._held.values())

    def room(self, priority: Priority) -> bool:
        """Whether one more of this class may come in."""
        return len(self) < self._capacity[Priority.LIVE] and self._held[priority] < self._capacity[priority]

    def put(self, entry: Entry) -> None:
        """Stand in line, last; the caller has asked for room."""
        entry.number, entry.waiting = self._arrived, True
        self._arrived += 1
        self._held[entry.priority] += 1
        if entry.key is not None:
            chain = self._chains.setdefault((entry.priority, entry.key), deque())
            chain.append(entry)
            if chain[0] is not entry:
                return  # its turn comes with `done`
        self._ready(entry)

    def take(self) -> list[Entry]:
        """The next batch, empty when nothing may run now; `done` must follow for each of it."""
        heads = {priority: self._oldest(priority) for priority in Priority}
        live, backfill = heads[Priority.LIVE], heads[Priority.BACKFILL]
        if live is None and backfill is None:
            return []
        if backfill is None or (live is not None and self._in_a_row < IN_A_ROW):
            chosen = Priority.LIVE
        else:
            chosen = Priority.BACKFILL
        self._in_a_row = self._in_a_row + 1 if chosen is Priority.LIVE and backfill is not None else 0
        head = heads[chosen]
        assert head is not None
        bucket = self._bucket(head.size)
        others = (priority for priority in Priority if priority is not chosen)
        batch = list(self._fill([chosen, *others], bucket))
        for entry in batch:
            entry.waiting = False
            self._held[entry.priority] -= 1
        return batch

    def drop(self, entry: Entry) -> None:
        """Take an entry out that nobody waits for any more; nothing where it runs or is gone already."""
        if not entry.waiting:
            return
        entry.waiting = False
        self._held[entry.priority] -= 1
        self._release(entry)
        heap = self._heaps[entry.priority][self._bucket(entry.size)]
        if len(heap) > 2 * self._capacity[Priority.LIVE]:  # dropped ones behind a first that waits
            heap[:] = sorted(other for other in heap if other.waiting)

    def done(self, entry: Entry) -> None:
        """A taken entry is answered: the next of its key may run."""
        self._release(entry)

    def clear(self) -> list[Entry]:
        """Empty the line; what stood in it, in order of arrival."""
        chained = {entry for chain in self._chains.values() for entry in chain}
        heaped = {entry for heaps in self._heaps.values() for heap in heaps for entry in heap}
        left = sorted(entry for entry in chained | heaped if entry.waiting)
        for entry in left:
            self.drop(entry)
        return left

    def _fill(self, order: Sequence[Priority], bucket: int) -> Iterator[Entry]:
        rows = longest = 0
        for priority in order:
            heap = self._heaps[priority][bucket]
            while self._trim(heap) and rows < self._rows:
                widest = max(longest, heap[0].size)
                if rows and (rows + 1) * widest > self._tokens:
                    break
                rows, longest = rows + 1, widest
                yield heapq.heappop(heap)

    def _oldest(self, priority: Priority) -> Entry | None:
        return min((heap[0] for heap in self._heaps[priority] if self._trim(heap)), default=None)

    @staticmethod
    def _trim(heap: list[Entry]) -> bool:
        """Whether the heap has a first entry, once dropped ones are off its top."""
        while heap and not heap[0].waiting:
            heapq.heappop(heap)
        return bool(heap)

    def _ready(self, entry: Entry) -> None:
        heapq.heappush(self._heaps[entry.priority][self._bucket(entry.size)], entry)

    def _bucket(self, size: int) -> int:
        return bisect_left(self._bounds, size)

    def _release(self, entry: Entry) -> None:
        """Take an entry off its key's chain; the first of the rest may run."""
        if entry.key is None:
            return
        place = (entry.priority, entry.key)
        chain = self._chains.get(place)
        if chain is None or entry not in chain:
            return
        was_first = chain[0] is entry
        chain.remove(entry)
        if not chain:
            del self._chains[place]
        elif was_first:
            self._ready(chain[0])
