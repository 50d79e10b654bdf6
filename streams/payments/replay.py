"""Offline: the features of a whole table of payments, by the very code that serves them, one after the other.

Rows come out bit for bit as the worker would have computed them, had the payments and labels arrived in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.payments.features import FEATURES, STEP, STEPS, Payment, add, row
from streams.payments.history import DAY, SLACK, AccountHistory, History

LABEL_DELAY = 7 * DAY  # until a label is known, where the data does not say
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Table:
    """Payments in order of arrival, each once; columns [n]. Accounts and terminals are codes: any integers.

    `known` is when it is known that a payment was a fraud, NEVER where it was none; ms since 1970, as `time`.
    """

    time: NDArray[np.int64]
    cents: NDArray[np.int64]
    account: NDArray[np.int64]
    terminal: NDArray[np.int64]
    country: NDArray[np.int64]
    known: NDArray[np.int64]


@dataclass(frozen=True)
class Replayed:
    """What the payments looked like when they arrived.

    features: float32 [n, len(FEATURES)]; steps: float32 [n, len(STEP)], each payment's own step of its account's
    sequence; before: int64 [n], the row of the account's previous payment, -1 where there is none; newest: int64 [n],
    the newest time of the account until then, ms, 0 where there is none.
    """

    features: NDArray[np.float32]
    steps: NDArray[np.float32]
    before: NDArray[np.int64]
    newest: NDArray[np.int64]


def replay(table: Table) -> Replayed:
    """Features of all payments of the table."""
    count = len(table.time)
    features = np.empty((count, len(FEATURES)), np.float32)
    before = np.full(count, -1, np.int64)
    accounts: dict[int, AccountHistory] = {}
    terminals: dict[int, History] = {}
    last: dict[int, int] = {}
    tops = np.zeros(count, np.int64)
    steps: list[bytes] = []
    order = np.argsort(table.known, kind="stable")
    frauds = iter(order[table.known[order] != NEVER].tolist())
    waiting = next(frauds, None)
    known, newest = table.known.tolist(), 0
    times, terminal_of, account_of = table.time.tolist(), table.terminal.tolist(), table.account.tolist()
    columns = zip(times, table.cents.tolist(), account_of, terminal_of, table.country.tolist(), strict=True)
    for index, (time, cents, account_code, terminal_code, country) in enumerate(columns):
        newest = max(newest, time)
        while waiting is not None and known[waiting] <= newest:
            if waiting < index:  # else it is judged before it came: then with the payment itself, below
                accounts[account_of[waiting]].add_fraud(times[waiting], known[waiting])
                terminals[terminal_of[waiting]].add_fraud(times[waiting], known[waiting])
                known[waiting] = NEVER
            waiting = next(frauds, None)
        account = accounts.get(account_code)
        if account is None:
            account = accounts[account_code] = AccountHistory()
        terminal = terminals.get(terminal_code)
        if terminal is None:
            terminal = terminals[terminal_code] = History()
        payment = Payment(time, cents, terminal_code & 0xFFFFFFFF, country)
        values, step, unusual = row(account, terminal, payment)
        features[index] = values
        steps.append(step)
        before[index], tops[index] = last.get(account_code, -1), account.newest
        last[account_code] = index
        terminal.add(time, cents, add(account, payment, unusual, step))
        if known[index] <= newest:
            account.add_fraud(time, known[index])
            terminal.add_fraud(time, known[index])
    own = np.frombuffer(b"".join(steps), "<f4").astype(np.float32).reshape(count, len(STEP))
    return Replayed(features, own, before, tops)


def sequences(replayed: Replayed, table: Table, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The sequences of these rows [m] as `features.sequence` gives them, float32 [m, STEPS, len(STEP)]."""
    found = np.zeros((len(rows), STEPS, len(STEP)), np.float32)
    found[:, -1] = replayed.steps[rows]
    floor = np.maximum(replayed.newest[rows], table.time[rows]) - SLACK
    taken = (
        table.time > replayed.newest - SLACK
    )  # what had expired when it arrived is no step of any sequence
    places = np.arange(len(rows))
    current = replayed.before[rows]
    left = np.full(len(rows), STEPS - 1)  # earlier steps that there is room for
    filled = np.full(len(rows), STEPS - 2)  # where the next one goes
    while len(places := places[(current[places] >= 0) & (left[places] > 0)]):
        at = current[places]
        left[places[taken[at]]] -= 1
        seen = taken[at] & (table.time[at] > floor[places])
        found[places[seen], filled[places[seen]]] = replayed.steps[at[seen]]
        filled[places[seen]] -= 1
        current[places] = replayed.before[at]
    return found
