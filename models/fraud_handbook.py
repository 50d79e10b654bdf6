"""The Fraud Detection Handbook's own 15 features, as a rival (Le Borgne et al. 2022, chapter 3).

Weekend, night (up to 6 o'clock), the customer's count and mean amount over 1, 7 and 30 days with the payment itself,
the terminal's count and fraud rate over 1, 7 and 30 days that ended 7 days ago. Its rolling windows hold (t - w, t].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.fraud_data import Payments
from streams.payments.history import DAY, HOUR

NAMES = (
    "amount",
    "weekend",
    "night",
    *(f"customer_{what}_{days}d" for days in (1, 7, 30) for what in ("count", "mean")),
    *(f"terminal_{what}_{days}d" for days in (1, 7, 30) for what in ("count", "risk")),
)
DELAY = 7 * DAY


def handbook_features(payments: Payments) -> NDArray[np.float32]:
    """[n, len(NAMES)]; a fraud counts by its own time, behind the delay."""
    table = payments.table
    amount = table.cents / 100
    columns = [
        amount,
        (payments.day + 3) % 7 >= 5,  # 1970 began on a Thursday
        table.time // HOUR % 24 <= 6,
    ]
    customer = _Windows(table.account, table.time)
    total = customer.running(amount)
    for days in (1, 7, 30):
        low = customer.after(days * DAY)
        count = customer.place + 1 - low
        mean = (total[customer.place + 1] - total[low]) / count
        columns += [customer.back(count), customer.back(mean)]
    terminal = _Windows(table.terminal, table.time)
    frauds = terminal.running(payments.label)
    high = terminal.after(DELAY)
    for days in (1, 7, 30):
        low = terminal.after(days * DAY + DELAY)
        count = high - low
        risk = (frauds[high] - frauds[low]) / np.maximum(count, 1)
        columns += [terminal.back(count), terminal.back(risk)]
    return np.stack(columns, axis=1).astype(np.float32)


class _Windows:
    """Rows grouped by key and in order of time; positions below are in that order."""

    def __init__(self, key: NDArray[np.int64], time: NDArray[np.int64]) -> None:
        self._order = np.lexsort((time, key))
        self._start = int(time.min())
        self._span = int(time.max()) - self._start + 1
        key, self._time = key[self._order], time[self._order] - self._start
        self._base = key * self._span
        self._sorted = self._base + self._time
        self._first = np.searchsorted(self._sorted, self._base)
        self.place = np.arange(len(key))

    def running(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Sums of the first i values."""
        return np.concatenate([[0.0], np.cumsum(values[self._order].astype(np.float64))])

    def after(self, ago: int) -> NDArray[np.int64]:
        """The first row of the key that is younger than `ago` ms before each row."""
        edge = self._base + np.maximum(self._time - ago, -1)
        return np.maximum(np.searchsorted(self._sorted, edge, side="right"), self._first)

    def back(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Values in the order of the table."""
        found = np.empty(len(values))
        found[self._order] = values
        return found
