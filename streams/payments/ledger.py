"""The worker's side of the logs in the store: histories that follow them, and each payment's features at its place.

The store appends each payment to the log of its account and of its terminal (streams/state/payments.lua) and says where
it stands and what others wrote before it. Here the histories take that in, in the order of the logs, so that a row is
computed from exactly what stands before the payment, by whichever worker, as often as it is asked for.

Memory: the histories that were used longest ago go when more than so many payments are held. Used by one thread.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from streams.payments.features import Payment, Row, add, row, sequence
from streams.payments.history import DAY, RETAIN, SLACK, AccountHistory, History

RECORD = struct.Struct(
    "<qq8sIIHBB"
)  # time, cents, id, counterpart, usual, country, kind, count: see payments.lua
COLUMNS = np.dtype(
    [
        ("time", "<i8"),
        ("cents", "<i8"),
        ("id", "V8"),
        ("other", "<u4"),
        ("usual", "<u4"),
        ("country", "<u2"),
        ("kind", "u1"),
        ("count", "u1"),
    ]
)
SIZE = RECORD.size
FRAUD, NO_FRAUD = 2, 3
EXPIRE_MS = RETAIN + SLACK  # a log that nobody writes to
EXTEND_MS = DAY  # how often its life is extended
CHECK_EVERY = 32  # records between two notes of what a log's front holds
MANY = 64  # records from which on they are taken in at once
NOBODY = bytes(8)
_NOWHERE = History()


class Claim(NamedTuple):
    """What the worker knows of a log."""

    read: int  # records, from the log's first one ever
    last: bytes  # the id of the last of them
    cut: int  # all records before this one have expired, 0: none
    extend: bool  # whether its life is to be extended


NOTHING = Claim(0, NOBODY, 0, True)  # of a log that the worker does not know


class Judged(NamedTuple):
    """A payment's features at its place, and its account's last steps (see features.sequence)."""

    row: Row
    sequence: bytes


class Follower:
    """One log, as far as it was read."""

    __slots__ = ("base", "checks", "extended", "history", "last", "read", "top")

    def __init__(self, history: History) -> None:
        self.history = history
        self.extended = 0
        self.forget(0)

    def forget(self, place: int) -> None:
        """Begin with nothing at this place of the log."""
        self.history = type(self.history)()
        self.base = self.read = place
        self.last = NOBODY
        self.top = 0  # the newest time of a payment that any record so far is about
        self.checks: list[tuple[int, int]] = []  # (place, newest time before it)

    def claim(self, now: int) -> Claim:
        """What to tell the store; `now` in ms."""
        cut, floor = 0, self.history.newest - RETAIN
        for place, top in self.checks:
            if top > floor:
                break
            cut = place
        if cut and 4 * (cut - self.base) < self.read - self.base:
            cut = 0
        return Claim(self.read, self.last, cut, now - self.extended > EXTEND_MS)

    def claimed(self, claim: Claim, now: int) -> None:
        """The store has done what the claim asked for."""
        if claim.extend:
            self.extended = now
        if claim.cut > self.base:
            self.base = claim.cut
            self.checks = [check for check in self.checks if check[0] > claim.cut]

    def passed(self, identity: bytes, time: int) -> None:
        """One record more was read, about a payment of this time."""
        self.read += 1
        self.last = identity
        if time > self.top:
            self.top = time
        if not self.read % CHECK_EVERY:
            self.checks.append((self.read, self.top))

    def take(self, records: bytes) -> None:
        """Read records on from here."""
        fresh = self.read == self.base
        if isinstance(self.history, AccountHistory):
            self._take_account(self.history, records, fresh)
        elif fresh and len(records) > MANY * SIZE:
            self._take_many(self.history, records)
        else:
            history = self.history
            for time, cents, identity, _, _, _, kind, _ in RECORD.iter_unpack(records):
                if kind >= FRAUD:
                    _judge(history, time, cents, kind)
                    self.passed(identity, cents)
                else:
                    history.add(time, cents, kind)
                    self.passed(identity, time)

    def _take_account(self, account: AccountHistory, records: bytes, fresh: bool) -> None:
        columns = np.frombuffer(records, COLUMNS)
        payments = columns["time"][columns["kind"] < FRAUD]
        recent = max(account.newest, int(payments.max()) if len(payments) else 0) - SLACK
        for time, cents, identity, other, usual, country, kind, count in RECORD.iter_unpack(records):
            if kind >= FRAUD:
                _judge(account, time, cents, kind)
                self.passed(identity, cents)
                continue
            if fresh:  # what came before it in this log has expired
                account.usual, account.count, account.last = usual, count, time - RETAIN
                fresh = False
            payment = Payment(time, cents, other, country)
            if time > recent:
                found = row(account, _NOWHERE, payment)
                add(account, payment, found.unusual, found.step)
            else:
                add(account, payment, 0, b"")
            self.passed(identity, time)

    def _take_many(self, history: History, records: bytes) -> None:
        columns = np.frombuffer(records, COLUMNS)
        labels = columns["kind"] >= FRAUD
        payments = columns[~labels]
        history.load(payments["time"], payments["cents"], payments["kind"])
        for time, cents, kind in columns[labels][["time", "cents", "kind"]].tolist():
            _judge(history, time, cents, kind)
        about = np.maximum.accumulate(np.where(labels, columns["cents"], columns["time"]))
        marks = np.arange(len(columns)) + self.read + 1
        for index in np.flatnonzero(marks % CHECK_EVERY == 0).tolist():
            self.checks.append((int(marks[index]), int(about[index])))
        self.read += len(columns)
        self.last, self.top = columns["id"][-1].tobytes(), int(about[-1])


def _judge(history: History, known: int, paid: int, kind: int) -> None:
    if kind == FRAUD:
        history.add_fraud(paid, known)
    else:
        history.remove_fraud(paid)


class Ledger:
    """The histories of the accounts and terminals that this worker meets.

    `fetch` gives the whole logs of some keys as they are now; it is used where the store's answer does not join what
    is held (a history that went while the answer was under way).
    """

    def __init__(self, most: int, fetch: Callable[[Sequence[str]], list[bytes]]) -> None:
        self._most = most
        self._fetch = fetch
        self._logs: OrderedDict[str, Follower] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def held(self) -> int:
        """Payments that are held now."""
        return self._held

    def forget(self, key: str) -> None:
        """Know nothing of a log any more."""
        log = self._logs.pop(key, None)
        if log is not None:
            self._held -= len(log.history.times)

    def claim(self, key: str, now: int) -> Claim:
        """What this worker knows of a log; `now` in ms."""
        log = self._logs.get(key)
        return log.claim(now) if log is not None else NOTHING

    def judge(
        self, keys: tuple[str, str], claims: tuple[Claim, Claim], payment: Payment, identity: bytes,
        decision: Any, reply: bytes, now: int,
    ) -> Judged:  # fmt: skip
        """The features of a new payment at its place; payments in the order in which the store took them.

        `keys` are those of account and terminal.
        """
        place_a, place_t, seen_a, seen_t = decision
        account = self._at(keys[0], True, claims[0], place_a, seen_a, reply, now)
        terminal = self._at(keys[1], False, claims[1], place_t, seen_t, reply, now)
        habits, there = account.history, terminal.history
        assert isinstance(habits, AccountHistory)
        found = row(habits, there, payment)
        steps = sequence(habits, found.step, payment.time)
        there.add(payment.time, payment.cents, add(habits, payment, found.unusual, found.step))
        account.passed(identity, payment.time)
        terminal.passed(identity, payment.time)
        self._held += 2
        return Judged(found, steps)

    def shrink(self) -> None:
        """Let go of what was used longest ago, down to the limit."""
        if self._held <= self._most:
            return
        self._held = sum(len(log.history.times) for log in self._logs.values())
        while self._held > 0.9 * self._most and len(self._logs) > 1:
            _, log = self._logs.popitem(last=False)
            self._held -= len(log.history.times)

    def _at(
        self, key: str, account: bool, claim: Claim, place: int, seen: Any, reply: bytes, now: int
    ) -> Follower:
        """The log read up to a place."""
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = Follower(AccountHistory() if account else History())
        else:
            self._logs.move_to_end(key)
        if seen:
            start, at, length, reset = seen
            if reset or (log.read < start and not claim.read):
                log.forget(start)
            if claim.cut or claim.extend:
                log.claimed(claim, now)
            skip = (log.read - start) * SIZE
            if 0 <= skip < length:
                before = log.read
                log.take(reply[at + skip : at + length])
                self._held += log.read - before
        if log.read != place:
            self._reload(key, log, place)
        return log

    def _reload(self, key: str, log: Follower, place: int) -> None:
        [whole] = self._fetch([key])
        base = int(struct.unpack_from("<d", whole)[0]) if whole else place
        log.forget(base)
        before = len(log.history.times)
        log.take(whole[8 : 8 + max(0, place - base) * SIZE])
        self._held += len(log.history.times) - before
        if (
            log.read != place
        ):  # the log is gone or shorter: the store lost it, and this worker's place with it
            log.forget(place)


class Past:
    """Whole logs, read again up to the places of payments that were done before; for one batch."""

    def __init__(self) -> None:
        self._logs: dict[str, tuple[Follower, bytes]] = {}

    def bring(self, key: str, account: bool, seen: Any, reply: bytes) -> None:
        """A log came with an answer; the first copy does."""
        if seen and key not in self._logs:
            start, at, length, _ = seen
            log = Follower(AccountHistory() if account else History())
            log.forget(start)
            self._logs[key] = (log, reply[at : at + length])

    def judge(self, keys: tuple[str, str], payment: Payment, identity: bytes) -> Judged:
        """The features of a payment as they were at its place."""
        account = self._before(keys[0], payment, identity)
        terminal = self._before(keys[1], payment, identity)
        assert isinstance(account, AccountHistory)
        found = row(account, terminal, payment)
        return Judged(found, sequence(account, found.step, payment.time))

    def _before(self, key: str, payment: Payment, identity: bytes) -> History:
        log, records = self._logs[key]
        place = _place(records, identity, payment.time)
        done = log.read - log.base
        if place < done:  # an earlier one than the last that was asked for
            log.forget(log.base)
            done = 0
        log.take(records[done * SIZE : place * SIZE])
        return log.history


def _place(records: bytes, identity: bytes, time: int) -> int:
    """The index of a payment's record, the last one; the end where it is not there (it has expired)."""
    end = len(records)
    head = struct.pack("<q", time)
    while (found := records.rfind(identity, 0, end)) >= 0:
        start = found - 16
        if (
            start >= 0
            and not start % SIZE
            and records[start : start + 8] == head
            and records[start + 34] < FRAUD
        ):
            return start // SIZE
        end = found + len(identity) - 1
    return len(records) // SIZE
