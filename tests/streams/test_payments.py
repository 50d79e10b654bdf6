"""Payment features: the fast way against looking at every earlier payment, late ones, ties and frauds included."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from streams.payments.features import FEATURES, STEP, STEPS
from streams.payments.history import AccountHistory, History
from streams.payments.money import cents, parse_rates
from streams.payments.replay import NEVER, Table, replay, sequences
from tests.streams.payments_by_hand import DAY, HOUR, Past, features, take

START = 1_750_000_000_000


def traffic(seed: int, count: int, span: int, late: float, furthest: int) -> list[dict[str, Any]]:
    """Random payments of few accounts and terminals in order of arrival."""
    generator = random.Random(seed)
    times = sorted(START + generator.randrange(span) // 1000 * 1000 for _ in range(count))
    made = []
    for time in times:
        lag = generator.randrange(furthest) if generator.random() < late else 0
        fraud = generator.random() < 0.1
        made.append(
            {
                "time": time - lag,
                "cents": generator.choice((0, 100, generator.randrange(-500, 50_000), 10**9)),
                "account": generator.randrange(4),
                "terminal": generator.randrange(3),
                "country": generator.choice((0, 1, 2)),
                "known": time - lag + generator.randrange(1, 20) * DAY if fraud else NEVER,
            }
        )
    return made


def table_of(payments: list[dict[str, Any]]) -> Table:
    """The payments as columns."""
    columns = {
        name: np.array([one[name] for one in payments], np.int64)
        for name in ("time", "cents", "account", "terminal", "country", "known")
    }
    return Table(**columns)


def by_hand(payments: list[dict[str, Any]]) -> tuple[np.ndarray[Any, Any], list[list[dict[str, Any]]]]:
    """The features [n, k] of the payments, and for each the payments of its account until it, itself included."""
    accounts: dict[int, Past] = defaultdict(Past)
    terminals: dict[int, Past] = defaultdict(Past)
    rows, histories, newest = [], [], 0
    unknown = sorted((one["known"], index) for index, one in enumerate(payments) if one["known"] != NEVER)
    for index, payment in enumerate(payments):
        newest = max(newest, payment["time"])
        for known, place in [pair for pair in unknown if pair[0] <= newest and pair[1] < index]:
            unknown.remove((known, place))
            judged = payments[place]
            accounts[judged["account"]].frauds.append((judged["time"], known))
            terminals[judged["terminal"]].frauds.append((judged["time"], known))
        account, terminal = accounts[payment["account"]], terminals[payment["terminal"]]
        found, seen = features(account, terminal, payment)
        rows.append([found[name] for name in FEATURES])
        histories.append([*account.payments, seen])
        take(account, terminal, seen)
    return np.array(rows, np.float32), histories


@pytest.mark.parametrize(
    ("span", "late", "furthest"),
    [(3 * DAY, 0.0, 1), (90 * DAY, 0.2, 2 * DAY), (400 * DAY, 0.3, 60 * DAY), (300 * DAY, 0.3, 200 * DAY)],
    ids=["in order", "two days late", "two months late", "later than anything kept"],
)
def test_features_equal_those_computed_by_hand(span: int, late: float, furthest: int) -> None:
    """Each of the features is bit for bit what looking at every earlier payment gives."""
    payments = traffic(span // DAY, 700, span, late, furthest)
    expected, _ = by_hand(payments)
    found = replay(table_of(payments)).features
    wrong = np.argwhere(found != expected)
    assert [(int(i), FEATURES[j], found[i, j], expected[i, j]) for i, j in wrong[:5]] == []


@pytest.mark.parametrize("furthest", [1, 3 * DAY, 70 * DAY])
def test_sequences_equal_those_computed_by_hand(furthest: int) -> None:
    """A sequence holds the last steps of its account within a month, in order of arrival, the present one last."""
    payments = traffic(7, 400, 100 * DAY, 0.3, furthest)
    table = table_of(payments)
    found = sequences(replay(table), table, np.arange(len(payments)))
    _, histories = by_hand(payments)
    for index, history in enumerate(histories):
        *earlier, present = history
        taken: list[dict[str, Any]] = []
        newest = 0
        for one in earlier:
            if one["time"] > newest - 30 * DAY:
                taken.append(one)
            newest = max(newest, one["time"])
        floor = max(newest, present["time"]) - 30 * DAY
        steps = [one["step"] for one in taken[1 - STEPS :] if one["time"] > floor] + [present["step"]]
        expected = np.zeros((STEPS, len(STEP)), np.float32)
        expected[-len(steps) :] = steps
        assert (found[index] == expected).all(), index


def test_a_history_loaded_at_once_is_the_same() -> None:
    """Loading many payments gives what adding them one by one gives."""
    generator = random.Random(3)
    times = [START + generator.randrange(80 * DAY) for _ in range(3_000)]
    amounts = [generator.randrange(10_000) for _ in times]
    flags = [generator.randrange(2) for _ in times]
    one_by_one, at_once = History(), History()
    for values in zip(times, amounts, flags, strict=True):
        one_by_one.add(*values)
    at_once.load(np.array(times), np.array(amounts), np.array(flags))
    for name in ("times", "amounts", "sums", "flags", "peaks", "peak_times", "newest"):
        assert getattr(one_by_one, name) == getattr(at_once, name), name


def test_a_history_forgets_what_expired() -> None:
    """An account that pays for years holds no more than the retention and a third of it."""
    account = AccountHistory()
    for index in range(20_000):
        account.add(START + index * HOUR, 100, 0)
    assert 120 * 24 <= len(account.times) <= 120 * 24 * 4 // 3 + 64
    assert len(account.sums) == len(account.times) + 1


def test_money_is_whole_cents_of_one_currency() -> None:
    """Amounts are converted by the table, unknown currencies at par, out of all reason ones are bounded."""
    rates = parse_rates("EUR=1.25, XYZ=2")
    assert cents(10.0, "EUR", rates) == 1250
    assert cents(0.1 + 0.2, "USD", rates) == 30
    assert cents(3.0, "XYZ", rates) == 600
    assert cents(3.0, "???", rates) == 300
    assert cents(10.0, "eur", rates) == 1250
    assert cents(1e300, "USD", rates) == 10**12
    assert cents(1.7e308, "USD", rates) == 10**12
    assert cents(-1.7e308, "EUR", rates) == -(10**12)
    with pytest.raises(ValueError, match=r"EUR=no"):
        parse_rates("EUR=no")
