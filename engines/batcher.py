"""The micro-batcher: single callers share an engine in small batches.

A caller asks for one item and waits, in a thread (`ask`), in asyncio (`answer`) or later (`submit`). Nothing waits for
a batch to fill: an idle engine takes what is there, and what comes while it runs makes the next batch
(`engines/line.py` says which). The line is bounded; beyond it callers wait to be let in. Cancelled and late items are
dropped before they cost anything. A batch that fails is halved until the culprit is alone. When the batcher itself
dies, every caller is told.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from engines.engine import EngineError
from engines.line import Entry, Line, Priority

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TooLate(Exception):
    """The item did not reach the engine within its caller's time; nothing was computed. Ask again, or for less."""


class Closed(Exception):
    """The batcher was closed, or died, before the item was answered; the message says which."""


class Reply(NamedTuple, Generic[R_co]):
    """An answer, and what its caller waited for (seconds): for a place and its turn, then for its batch."""

    value: R_co
    queued: float
    inference: float
    rows: int  # items in its batch


class _Work(NamedTuple, Generic[T, R]):
    item: T
    reply: Future[Reply[R]]
    let_in: Future[None]
    asked: float
    latest: float | None


class Batcher(Generic[T, R]):
    """Answers items by `run`, which takes a batch and gives a value for each, in order; `size` is an item's tokens.

    `rows` and `tokens` (padded) bound a batch, `capacity` the items that wait. `run` is called from `lanes` threads.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        size: Callable[[T], int],
        *,
        buckets: Sequence[int] = (16, 32, 64, 128),
        rows: int = 64,
        tokens: int = 128,
        capacity: int = 256,
        lanes: int = 1,
        name: str = "batcher",
    ) -> None:
        self._answer_all = run
        self._size = size
        self._line = Line(buckets, rows, tokens, capacity)
        self._outside: dict[Priority, deque[Entry]] = {priority: deque() for priority in Priority}
        self._changed = threading.Condition()
        self._ended: Closed | None = None
        self._running: set[Future[Reply[R]]] = set()
        self._lanes = [
            threading.Thread(target=self._lane, name=f"{name}-{number}", daemon=True)
            for number in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    def ask(
        self,
        item: T,
        priority: Priority = Priority.LIVE,
        key: Hashable | None = None,
        within: float | None = None,
    ) -> Reply[R]:
        """The answer; blocks while others are before it, and while the line is full.

        `within` seconds it must reach the engine, or TooLate is raised and nothing computed. Items of one key and
        priority are answered in the order of asking. Raises what `run` raised about this very item, or Closed.
        """
        work = self._enter(item, priority, key, within)
        try:
            return work.reply.result(within)
        except TimeoutError:
            if work.reply.done() or not work.reply.cancel():
                return work.reply.result()  # it runs already, or `run` raised a TimeoutError
            raise TooLate(f"not begun within {within} s") from None
        except BaseException:
            work.reply.cancel()  # Ctrl-C: nobody waits any more
            raise

    async def answer(
        self,
        item: T,
        priority: Priority = Priority.LIVE,
        key: Hashable | None = None,
        within: float | None = None,
    ) -> Reply[R]:
        """As `ask`, without blocking the event loop; a cancelled task's item is dropped."""
        work = self._enter(item, priority, key, within)
        waiting = asyncio.wrap_future(work.reply)
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), within)
        except TimeoutError:
            if work.reply.done() or not work.reply.cancel():
                return await waiting
            raise TooLate(f"not begun within {within} s") from None
        except asyncio.CancelledError:
            work.reply.cancel()
            raise

    def submit(
        self,
        item: T,
        priority: Priority = Priority.LIVE,
        key: Hashable | None = None,
        within: float | None = None,
    ) -> Future[Reply[R]]:
        """The answer to come, when the item stands in the line: blocks while that is full.

        Its `cancel` takes the item out as long as it does not run. Raises TooLate or Closed, as `ask` does.
        """
        work = self._enter(item, priority, key, within)
        try:
            work.let_in.result(within)
        except TimeoutError:
            if work.reply.cancel():
                raise TooLate(f"not let in within {within} s") from None
        except BaseException:
            work.reply.cancel()
            raise
        return work.reply

    def waiting(self) -> int:
        """Items in the line and before it."""
        with self._changed:
            return len(self._line) + sum(map(len, self._outside.values()))

    def close(self) -> None:
        """Let the batches that run end, and tell every other caller that the batcher is closed."""
        self._end(Closed("the batcher is closed"), [])
        for lane in self._lanes:
            lane.join()

    def _enter(self, item: T, priority: Priority, key: Hashable | None, within: float | None) -> _Work[T, R]:
        """Stand in the line or, where it is full, before it; who calls waits for the one or the other."""
        asked = time.perf_counter()
        work = _Work[T, R](item, Future(), Future(), asked, None if within is None else asked + within)
        entry = Entry(self._size(item), priority, key, work)
        with self._changed:
            if self._ended is not None:
                raise Closed(str(self._ended)) from self._ended.__cause__
            self._outside[priority].append(entry)
            self._let_in()
        work.reply.add_done_callback(lambda ended: self._cancelled(entry) if ended.cancelled() else None)
        return work

    def _let_in(self) -> None:
        """With the lock: those who stand before the line and have room now, live ones first."""
        for priority, outside in self._outside.items():
            while outside and self._line.room(priority):
                entry = outside.popleft()
                self._line.put(entry)
                entry.work.let_in.set_result(None)
        self._changed.notify_all()

    def _cancelled(self, entry: Entry) -> None:
        with self._changed:
            if entry in self._outside[entry.priority]:
                self._outside[entry.priority].remove(entry)
            else:
                self._line.drop(entry)
            self._let_in()

    # The threads that run batches

    def _lane(self) -> None:
        batch: list[Entry] = []
        try:
            while batch := self._next():
                self._begin([entry.work for entry in batch])
                with self._changed:
                    for entry in batch:
                        self._line.done(entry)
                    self._changed.notify_all()
        except BaseException as error:
            died = Closed(f"the batcher died of {type(error).__name__}: {error}")
            died.__cause__ = error
            self._end(died, batch)

    def _next(self) -> list[Entry]:
        """The next batch, when there is one; empty at the end."""
        with self._changed:
            while self._ended is None:
                if batch := self._line.take():
                    self._let_in()
                    return batch
                self._changed.wait()
            return []

    def _begin(self, works: Sequence[_Work[T, R]]) -> None:
        """Leave out what nobody waits for or what is too late, and run the rest."""
        now, wanted = time.perf_counter(), []
        for work in works:
            if not work.reply.set_running_or_notify_cancel():
                continue
            if work.latest is not None and now > work.latest:
                work.reply.set_exception(TooLate(f"its turn came after {now - work.asked:.3f} s"))
            else:
                wanted.append(work)
        if wanted:
            self._run(wanted, now)

    def _run(self, works: Sequence[_Work[T, R]], began: float) -> None:
        """Answer each; a failing batch is halved until the culprit is alone with its error."""
        try:
            values = self._answer_all([work.item for work in works])
            if len(values) != len(works):
                raise EngineError(f"{len(values)} answers for {len(works)} items")
        except Exception as error:
            if len(works) == 1:
                works[0].reply.set_exception(error)
                return
            middle = len(works) // 2
            self._run(works[:middle], began)
            self._run(works[middle:], began)
            return
        ended = time.perf_counter()
        for work, value in zip(works, values, strict=True):
            work.reply.set_result(Reply(value, began - work.asked, ended - began, len(works)))

    def _end(self, reason: Closed, batch: Sequence[Entry]) -> None:
        """No more: tell these, all in the line and all before it."""
        with self._changed:
            self._ended = self._ended or reason
            before = [entry for outside in self._outside.values() for entry in outside]
            for outside in self._outside.values():
                outside.clear()
            left = [*batch, *self._line.clear(), *before]
            self._changed.notify_all()
        for entry in left:
            reply = entry.work.reply
            if not reply.done() and (reply.running() or reply.set_running_or_notify_cancel()):
                reply.set_exception(reason)
        for entry in before:
            entry.work.let_in.set_exception(reason)
