"""The micro-batcher: every caller gets its own answer, whatever the others do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.batcher import Batcher, Closed, Reply, TooLate
from engines.line import Priority

DEADLINE = 20.0


class Engine:
    """Squares numbers, notes its batches, fails on `poison`, and can be held."""

    def __init__(self, poison: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.poison = set(poison)
        self.error: BaseException | None = None
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.busy.set()
        assert self.free.wait(DEADLINE)
        if self.error is not None:
            raise self.error
        if found := self.poison & set(items):
            raise ValueError(f"poison {sorted(found)}")
        return [item * item for item in items]

    def asked(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@contextmanager
def batcher(engine: Engine, **how: int) -> Iterator[Batcher[int, int]]:
    made = Batcher(engine.run, lambda item: 1 + item % 100, **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        engine.free.set()
        made.close()


@contextmanager
def held(engine: Engine, made: Batcher[int, int]) -> Iterator[Future[Reply[int]]]:
    """The engine is busy with item 0 until the block ends."""
    engine.free.clear()
    engine.busy.clear()
    first = made.submit(0)
    assert engine.busy.wait(DEADLINE)
    try:
        yield first
    finally:
        engine.free.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 999), st.sampled_from(Priority), st.sampled_from([None, "a", "b"]), st.booleans()
        ),
        max_size=40,
    ),
    st.sets(st.integers(0, 999), max_size=4),
    st.integers(1, 3),
)
def test_no_item_is_lost_doubled_or_reordered(
    asked: list[tuple[int, Priority, str | None, bool]], poison: set[int], lanes: int
) -> None:
    """Each gets its own answer, its own error or its cancellation, and those of a key are answered in order."""
    engine = Engine(sorted(poison))
    ended: list[tuple[tuple[Priority, str | None], int]] = []

    def note(at: tuple[tuple[Priority, str | None], int], done: Future[Reply[int]]) -> None:
        if not done.cancelled():
            ended.append(at)

    with batcher(engine, lanes=lanes, capacity=100) as made:
        futures = []
        for number, (item, priority, key, cancel) in enumerate(asked):
            future = made.submit(item, priority, key)
            place = (priority, key)
            future.add_done_callback(partial(note, (place, number)))
            futures.append((item, future, cancel and future.cancel()))
        for item, future, cancelled in futures:
            if cancelled:
                assert future.cancelled()
            elif item in poison:
                with pytest.raises(ValueError, match="poison"):
                    future.result(DEADLINE)
            else:
                assert future.result(DEADLINE).value == item * item
        until(lambda: len(ended) == sum(not cancelled for *_, cancelled in futures))
    for place in {place for place, _ in ended}:
        numbers = [number for at, number in ended if at == place]
        assert place[1] is None or numbers == sorted(numbers)


def test_an_idle_engine_does_not_wait() -> None:
    """A single item runs at once, alone; the reply says how long it waited and ran."""
    engine = Engine()
    with batcher(engine) as made:
        reply = made.ask(7)
    assert (reply.value, reply.rows) == (49, 1)
    assert reply.queued >= 0
    assert reply.inference >= 0
    assert engine.batches == [[7]]


def test_what_comes_while_the_engine_runs_makes_the_next_batch() -> None:
    """Waiting callers of one bucket share a batch."""
    engine = Engine()
    with batcher(engine) as made, held(engine, made):
        futures = [made.submit(item) for item in (1, 2, 3)]
        engine.free.set()
        assert [future.result(DEADLINE).value for future in futures] == [1, 4, 9]
        assert engine.batches[1:] == [[1, 2, 3]]
        assert futures[0].result().rows == 3


def test_live_work_overtakes_backfill() -> None:
    """A live item that came last runs before the backfill of another bucket."""
    engine = Engine()
    with batcher(engine) as made, held(engine, made):
        slow = made.submit(50, Priority.BACKFILL)
        quick = made.submit(1)
        engine.free.set()
        slow.result(DEADLINE)
        quick.result(DEADLINE)
        assert engine.asked() == [0, 1, 50]


def test_cancelled_work_costs_nothing() -> None:
    """An item cancelled while it waits never reaches the engine, and its place is free at once."""
    engine = Engine()
    with batcher(engine, capacity=1) as made, held(engine, made):
        gone = made.submit(1)
        assert gone.cancel()
        assert made.submit(2).cancel()
        last = made.submit(3)
        engine.free.set()
        assert last.result(DEADLINE).value == 9
        assert engine.asked() == [0, 3]


def test_late_work_costs_nothing() -> None:
    """An item that did not reach the engine in its time raises TooLate and is not computed."""
    engine = Engine()
    with batcher(engine) as made, held(engine, made):
        with pytest.raises(TooLate, match="not begun"):
            made.ask(1, within=0.01)
        late, over = made.submit(2, within=0.05), time.monotonic() + 0.06
        until(lambda: time.monotonic() > over)
        engine.free.set()
        with pytest.raises(TooLate, match="turn came"):
            late.result(DEADLINE)
    assert engine.asked() == [0]


def test_work_that_runs_at_its_deadline_is_answered() -> None:
    """The time bounds the wait for the engine, not the engine."""
    engine = Engine()
    with batcher(engine) as made:
        engine.free.clear()
        threading.Timer(0.1, engine.free.set).start()
        assert made.ask(3, within=0.02).value == 9


def test_overload_slows_the_caller() -> None:
    """Whoever comes to a full line is blocked until there is room, or its time is over."""
    engine = Engine()
    with batcher(engine, capacity=2) as made, held(engine, made):
        inside = [made.submit(item) for item in (1, 2)]
        with pytest.raises(TooLate, match="let in"):
            made.submit(3, within=0.01)
        came: list[Future[Reply[int]]] = []
        blocked = threading.Thread(target=lambda: came.append(made.submit(4)))
        blocked.start()
        until(lambda: made.waiting() == 3)
        assert not came
        engine.free.set()
        blocked.join(DEADLINE)
        assert [future.result(DEADLINE).value for future in (*inside, *came)] == [1, 4, 16]
        assert 3 not in engine.asked()


def test_only_the_poison_gets_the_error() -> None:
    """A failing batch is halved until the culprits are alone; their neighbours are answered."""
    engine = Engine(poison=[5, 6])
    with batcher(engine) as made, held(engine, made):
        futures = {item: made.submit(item) for item in range(1, 9)}
        engine.free.set()
        for item, future in futures.items():
            if item in (5, 6):
                with pytest.raises(ValueError, match=rf"poison \[{item}\]"):
                    future.result(DEADLINE)
            else:
                assert future.result(DEADLINE).value == item * item


def test_a_wrong_number_of_answers_is_no_answer() -> None:
    """An engine that answers too few rows gives every caller an error, not a neighbour's answer."""
    made: Batcher[int, int] = Batcher(lambda items: [0] * (len(items) + 1), lambda _: 1)
    with pytest.raises(Exception, match="2 answers for 1 items"):
        made.ask(1)
    made.close()


def test_a_crash_reaches_every_waiter() -> None:
    """When the thread itself dies, those that run, wait and stand outside are told, and so is who comes later."""
    engine = Engine()
    engine.error = SystemExit("out of memory")
    with batcher(engine, capacity=2) as made:
        with held(engine, made) as running:
            waiting = [made.submit(item) for item in (1, 2)]
            told: list[BaseException] = []

            def ask() -> None:
                try:
                    made.submit(3)
                except Closed as error:
                    told.append(error)

            outside = threading.Thread(target=ask)
            outside.start()
            until(lambda: made.waiting() == 3)
        outside.join(DEADLINE)
        for future in (running, *waiting):
            with pytest.raises(Closed, match="died of SystemExit"):
                future.result(DEADLINE)
        assert len(told) == 1
        with pytest.raises(Closed, match="died of SystemExit"):
            made.ask(4)


def test_closing_tells_those_who_wait() -> None:
    """The batch that runs is answered, the rest hears that the batcher is closed."""
    engine = Engine()
    with batcher(engine) as made:
        with held(engine, made) as running:
            waiting = made.submit(1)
            closing = threading.Thread(target=made.close)
            closing.start()
            with pytest.raises(Closed, match="closed"):
                waiting.result(DEADLINE)
        closing.join(DEADLINE)
        assert running.result(DEADLINE).value == 0
        with pytest.raises(Closed):
            made.ask(2)


def test_asyncio_callers_share_batches() -> None:
    """`answer` gives tasks what `ask` gives threads, and blocks no event loop."""
    engine = Engine(poison=[5])

    async def ask() -> list[object]:
        made: Batcher[int, int] = Batcher(engine.run, lambda _: 1, capacity=4)
        try:
            return list(await asyncio.gather(*(made.answer(i) for i in range(12)), return_exceptions=True))
        finally:
            await asyncio.to_thread(made.close)

    found = asyncio.run(ask())
    values = [one.value for one in found if isinstance(one, Reply)]
    assert values == [i * i for i in range(12) if i != 5]
    assert isinstance(found[5], ValueError)


def test_a_cancelled_task_costs_nothing() -> None:
    """A task that is cancelled or too late while it waits takes its item out of the line."""
    engine = Engine()

    async def ask(made: Batcher[int, int]) -> None:
        task = asyncio.create_task(made.answer(1))
        await asyncio.to_thread(until, lambda: made.waiting() == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TooLate):
            await made.answer(2, within=0.01)
        assert made.waiting() == 0

    with batcher(engine) as made, held(engine, made):
        asyncio.run(ask(made))
    assert engine.asked() == [0]
