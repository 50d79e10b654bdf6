"""The line in front of an engine: nothing lost, doubled or out of order, whatever comes and goes."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.line import IN_A_ROW, Entry, Line, Priority

BUCKETS, ROWS, TOKENS, CAPACITY = (16, 32, 64, 128), 4, 128, 12

# what happens to a line: an entry comes, a batch is taken, the oldest batch is done, an entry is dropped
PUT = st.tuples(
    st.just("put"), st.integers(1, 200), st.sampled_from(Priority), st.sampled_from([None, "a", "b"])
)
OTHER = st.tuples(st.sampled_from(["take", "done", "drop"]), st.integers(0, 20))


def line() -> Line:
    return Line(BUCKETS, ROWS, TOKENS, CAPACITY)


def entry(size: int = 10, priority: Priority = Priority.LIVE, key: str | None = None) -> Entry:
    return Entry(size, priority, key)


@settings(max_examples=300)
@given(st.lists(st.one_of(PUT, OTHER)))
def test_each_entry_is_taken_once_or_dropped_and_in_its_keys_order(happenings: list[tuple]) -> None:  # type: ignore[type-arg]
    """Whatever happens, an entry ends taken once or dropped, in bounds, and a key's run one by one in order."""
    waiting_line = line()
    came: list[Entry] = []
    taken: list[Entry] = []
    dropped: set[Entry] = set()
    running: list[list[Entry]] = []

    def take() -> bool:
        batch = waiting_line.take()
        assert len(batch) <= ROWS
        assert len(batch) < 2 or len(batch) * max(e.size for e in batch) <= TOKENS
        keys = [(e.priority, e.key) for e in (*batch, *(e for other in running for e in other)) if e.key]
        assert len(keys) == len(set(keys)), "two of one key at once"
        taken.extend(batch)
        if batch:
            running.append(batch)
        return bool(batch)

    def done() -> None:
        for finished in running.pop(0):
            waiting_line.done(finished)

    for what, *detail in happenings:
        if what == "put":
            new = Entry(*detail)
            if waiting_line.room(new.priority):
                waiting_line.put(new)
                came.append(new)
        elif what == "take":
            take()
        elif what == "done" and running:
            done()
        elif what == "drop" and came:
            chosen = came[detail[0] % len(came)]
            if chosen.waiting:
                dropped.add(chosen)
            waiting_line.drop(chosen)
        assert len(waiting_line) == sum(e.waiting for e in came) <= CAPACITY
    while take() or running:
        if running:
            done()
    assert len(taken) == len(set(taken))
    assert set(taken) | dropped == set(came)
    assert not set(taken) & dropped
    order = defaultdict(list)
    for one in taken:
        order[one.priority, one.key].append(one.number)
    assert all(numbers == sorted(numbers) for (_, key), numbers in order.items() if key is not None)
    assert len(waiting_line) == 0
    assert waiting_line.clear() == []


def test_live_goes_before_backfill() -> None:
    """What came later and is live runs first; backfill of the same bucket fills the room that is left."""
    waiting_line, old, new = line(), entry(priority=Priority.BACKFILL), entry()
    for one in (old, new):
        waiting_line.put(one)
    assert waiting_line.take() == [new, old]


def test_backfill_is_not_starved() -> None:
    """However much live work stands in the line, backfill has one batch of eight."""
    waiting_line, backfill = line(), entry(100, Priority.BACKFILL)
    waiting_line.put(backfill)
    taken: list[Entry] = []
    while backfill not in taken:
        while waiting_line.room(Priority.LIVE):
            waiting_line.put(entry(10))
        taken = waiting_line.take()
        for one in taken:
            waiting_line.done(one)
    assert waiting_line._in_a_row == 0
    assert IN_A_ROW == 7


def test_backfill_does_not_fill_the_line() -> None:
    """Half of the places are for live work only."""
    waiting_line = line()
    while waiting_line.room(Priority.BACKFILL):
        waiting_line.put(entry(priority=Priority.BACKFILL))
    assert len(waiting_line) == CAPACITY // 2
    assert waiting_line.room(Priority.LIVE)


def test_a_batch_is_of_one_bucket() -> None:
    """A short text does not run padded to a long one's length; the oldest decides which bucket is next."""
    waiting_line = line()
    sizes = [10, 100, 12, 20, 9]
    for size in sizes:
        waiting_line.put(entry(size))
    batches = [[e.size for e in waiting_line.take()] for _ in range(3)]
    assert batches == [[10, 12, 9], [100], [20]]


def test_the_oldest_of_a_class_is_always_in_the_next_batch() -> None:
    """No length waits for ever because others fit a batch better."""
    waiting_line = line()
    long = entry(128)
    for one in (entry(8), long, *(entry(8) for _ in range(8))):
        waiting_line.put(one)
    assert long not in waiting_line.take()
    assert long in waiting_line.take()


def test_dropped_entries_do_not_pile_up() -> None:
    """Entries that are dropped behind one that waits leave the memory as well."""
    waiting_line = line()
    first = entry()
    waiting_line.put(first)
    for _ in range(1000):
        gone = entry()
        waiting_line.put(gone)
        waiting_line.drop(gone)
    assert len(waiting_line) == 1
    assert sum(len(heap) for heaps in waiting_line._heaps.values() for heap in heaps) <= 2 * CAPACITY + 1
    assert waiting_line.take() == [first]
