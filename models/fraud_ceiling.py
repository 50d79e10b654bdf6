"""What nobody can exceed on the Handbook's data: the average precision of a judge that knows how its simulator works.

Its frauds (Le Borgne et al. 2022, chapter 3): any amount above 220; all payments at a compromised terminal for 28 days
(two terminals a day); a third of a compromised card's payments for 14 days, at five times the amount (three cards a
day). The judge sees what serving sees, fraud labels seven days late, and knows each card's mean amount, all durations
and rates; it is told the scenario of known frauds. It then states the probability of fraud by Bayes' rule. Payments at
a terminal in the first week of its compromise, a quarter of them, look like any other.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fraud_data import Payments
from models.fraud_figures import average_precision
from streams.payments.history import DAY

ALWAYS = 22_000  # cents: any payment above is a fraud
TERMINALS, PLACE_DAYS, PLACES_A_DAY = 10_000, 28, 2
CARDS, CARD_DAYS, CARDS_A_DAY, FACTOR, SHARE = 5_000, 14, 3, 5.0, 1 / 3
DELAY = 7 * DAY


def figures(folder: Path, payments: Payments, weeks: list[str]) -> list[dict[str, Any]]:
    """The judge's average precision in all of each of these weeks."""
    from models.fraud_protocol import day_of, figure_of

    scenario = scenarios(folder)
    p = judge(payments, scenario)
    made = []
    for week in weeks:
        rows = (payments.day >= day_of(week)) & (payments.day < day_of(week) + 7)
        value = average_precision(payments.label[rows], p[rows])
        made.append(figure_of(f"week of {week}.ceiling of average_precision", [value], None))
    return made


def scenarios(folder: Path) -> NDArray[np.int64]:
    """The scenario of each payment (0 for none), in order of time as `fraud_data.read` sorts them."""
    rows = []
    for path in sorted(folder.glob("transactions_*.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows += [(row["TX_DATETIME"], int(row["TX_FRAUD_SCENARIO"])) for row in csv.DictReader(file)]
    rows.sort(key=lambda row: row[0])
    return np.array([scenario for _, scenario in rows])


def judge(payments: Payments, scenario: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability of fraud of each payment."""
    place = _place(payments, scenario)
    card = _card(payments, scenario)
    always = (payments.table.cents > ALWAYS) * (1 - 1e-9)
    return 1 - (1 - always) * (1 - place) * (1 - card)


def _place(payments: Payments, scenario: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether its terminal is compromised: by when the judged frauds began, uniformly since the last honest payment."""
    table, day = payments.table, payments.day
    found = np.zeros(len(day))
    order = np.lexsort((table.time, table.terminal))
    bounds = np.flatnonzero(np.diff(table.terminal[order], prepend=-1))
    for low, high in zip(bounds, [*bounds[1:], len(order)], strict=True):
        rows = order[low:high]
        times, days = table.time[rows], day[rows]
        judged = np.searchsorted(times, times - DELAY, side="right")  # so many are judged
        honest = payments.label[rows] == 0
        manipulated = scenario[rows] == 2
        last_honest = np.maximum.accumulate(np.where(honest, np.arange(len(rows)), -1))
        following = np.append(np.flatnonzero(manipulated), len(rows))
        before = np.where(judged > 0, last_honest[judged - 1], -1)
        first = following[np.searchsorted(following, before + 1)]
        start = np.where(before >= 0, days[before], days[0] - 1)
        begun = first < judged
        end = days[np.minimum(first, len(rows) - 1)]
        span = np.maximum(end - start, 1)
        lowest = np.maximum(start + 1, days - PLACE_DAYS + 1)  # a later start is still going on
        rate = PLACES_A_DAY / TERMINALS
        fresh = np.minimum(days - start, PLACE_DAYS) * rate
        sure = np.clip((end - lowest + 1) / span, rate, 1 - 1e-6)
        found[rows] = np.where(begun, sure, fresh)
    return found


def _card(payments: Payments, scenario: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether it is one of a compromised card's multiplied payments: by all amounts of the card until then."""
    table, day = payments.table, payments.day
    cents = table.cents.astype(np.float64)
    own = scenario != 3
    cards = int(table.account.max()) + 1
    mean = np.bincount(table.account[own], cents[own], cards) / np.maximum(
        np.bincount(table.account[own], minlength=cards), 1
    )
    usual = np.maximum(mean[table.account], 1.0)
    x = cents / usual  # honest amounts are normal with a deviation of half their mean
    likelihood = np.exp(-2 * (x / FACTOR - 1) ** 2) / FACTOR / np.maximum(np.exp(-2 * (x - 1) ** 2), 1e-250)
    found = np.zeros(len(day))
    order = np.lexsort((table.time, table.account))
    bounds = np.flatnonzero(np.diff(table.account[order], prepend=-1))
    for low, high in zip(bounds, [*bounds[1:], len(order)], strict=True):
        rows = order[low:high]
        days, ratio = day[rows], likelihood[rows]
        running = np.concatenate([[0.0], np.cumsum(np.log(1 - SHARE + SHARE * ratio))])
        here = np.arange(len(rows))
        odds = np.zeros(len(rows))
        for age in range(CARD_DAYS):
            since = np.searchsorted(days, days - age)
            odds += CARDS_A_DAY / CARDS * np.exp(np.clip(running[here] - running[since], -60, 60))
        raised, plain = odds * SHARE * ratio, 1 + odds * (1 - SHARE)
        found[rows] = raised / (raised + plain)
    return found
