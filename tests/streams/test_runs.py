"""The strict commit rule and the inbox, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.runs import Inbox, Place, Progress, Run


@dataclass
class Record:
    """A record of which only the place matters."""

    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def run_of(*offsets: int) -> Run:
    return Run("t", 0, [Record(offset) for offset in offsets], lambda: None)


# Lengths of runs, the gap before each, and the order in which they are acknowledged.
DELIVERIES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=8).flatmap(
    lambda runs: st.tuples(st.just(runs), st.permutations(range(len(runs))))
)


@given(DELIVERIES, st.integers(0, 100))
def test_nothing_unacknowledged_is_committed(
    deliveries: tuple[list[tuple[int, int]], list[int]], start: int
) -> None:
    """Whatever the order of acknowledgements and the gaps, the commit is the end of the acknowledged prefix."""
    shapes, order = deliveries
    progress, runs, offset = Progress(Place(start, start)), [], start
    for length, gap in shapes:
        offset += gap
        runs.append(run_of(*range(offset, offset + length)))
        progress.deliver(runs[-1])
        offset += length
    for index in order:
        runs[index].ack()
        prefix = next((n for n, run in enumerate(runs) if not run.acknowledged), len(runs))
        expected = runs[prefix - 1].end if prefix else start
        assert (progress.committable() or start) == expected
        assert progress.position == expected


def test_a_refused_commit_is_offered_again() -> None:
    """An offset is committable until it is known to be committed."""
    progress = Progress(Place(0, None))
    run = run_of(0, 1)
    progress.deliver(run)
    run.ack()
    assert [progress.committable(), progress.committable()] == [2, 2]
    progress.committed = 2
    assert progress.committable() is None


def test_rewinding_forgets_what_is_not_done() -> None:
    """After a rewind, acknowledgements of what went out before it count no more."""
    progress = Progress(Place(0, 0))
    first, second, third = run_of(0, 1), run_of(2, 3), run_of(4)
    for run in (first, second, third):
        progress.deliver(run)
    first.ack()
    assert progress.rewind() == 2
    second.ack()
    third.ack()
    assert progress.committable() == 2
    again = run_of(2, 3, 4)
    progress.deliver(again)
    again.ack()
    assert progress.committable() == 5


def test_a_log_that_begins_anew() -> None:
    """When offsets fall back, the log was made again: smaller offsets are committed."""
    progress = Progress(Place(1000, 1000))
    run = run_of(0, 1, 2)
    progress.deliver(run)
    assert progress.committable() == 0
    run.ack()
    assert progress.committable() == 3


def test_the_inbox_joins_what_waits_and_holds_back_the_rest() -> None:
    """The inbox gives all waiting runs at once, at most its bound of records, or a single larger run."""

    async def play() -> list[list[int]]:
        inbox = Inbox(max_records=4)
        runs = [run_of(0, 1), run_of(2, 3), run_of(4), run_of(5, 6, 7, 8, 9, 10), run_of(11)]
        filling = asyncio.create_task(_fill(inbox, runs))
        taken: list[list[int]] = []
        while sum(len(one) for one in taken) < 12:
            await asyncio.sleep(0)
            taken.append([record.offset for run in await inbox.take() for record in run.records])
        await filling
        return taken

    assert asyncio.run(play()) == [[0, 1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [11]]


async def _fill(inbox: Inbox, runs: list[Run]) -> None:
    for run in runs:
        await inbox.put(run)


def test_a_run_says_how_far_reading_had_come_before_it() -> None:
    """Its `after` is the end of the run delivered before it, whether or not that was ever handled, gaps or not."""
    progress = Progress(Place(3, None))
    first, second = run_of(3, 4), run_of(9, 10)
    progress.deliver(first)
    progress.deliver(second)
    assert (first.after, second.after) == (3, 5)
    progress.rewind()
    again = run_of(9, 10)
    progress.deliver(again)
    assert again.after == 3


def test_what_will_be_read_again_never_reaches_the_handler() -> None:
    """A run that waited for room while its partition went away, or was rewound, is not put into the inbox."""

    async def scenario() -> None:
        progress, inbox = Progress(Place(0, None)), Inbox(2)
        handled, waiting, third = run_of(0, 1), run_of(2, 3), run_of(4, 5)
        for one in (handled, waiting, third):
            progress.deliver(one)
        await inbox.put(waiting)
        late = asyncio.create_task(inbox.put(third))
        await asyncio.sleep(0)
        progress.give_up({handled})
        inbox.clear()
        await late
        fresh = run_of(6)
        progress.deliver(fresh)
        await inbox.put(fresh)
        assert await inbox.take() == [fresh]
        assert (handled.stale, waiting.stale, third.stale) == (False, True, True)

    asyncio.run(scenario())
