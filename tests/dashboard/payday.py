"""Fills a store with payments through the real pipeline, with a model that a test can foretell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams import records
from streams.guard import Item
from streams.payments.features import FEATURES
from streams.payments.population import Scale
from streams.payments.scenarios import HOUR
from streams.payments.simulator import Simulator, transactions
from streams.records import Reason, Transaction
from streams.state.store import Store
from streams.transactions import TransactionsPipeline
from tests.streams.tills import Tills

BATCH = 256
COLUMNS = ("amount_to_mean_90d", "new_terminal", "account_count_1h", "amount", "terminal_count_1h", "night")


class Plain:
    """A model by hand: far above habit is fraud; its reasons add up to its logit."""

    model = "hand-2026.11"
    engine = "tiny"

    def score(self, features: NDArray[Any], sequences: NDArray[Any]) -> NDArray[Any]:
        """By `_parts`."""
        shares: NDArray[Any] = 1.0 / (1.0 + np.exp(-self._parts(features).sum(axis=1)))
        return shares

    def reasons(self, features: NDArray[Any], sequences: NDArray[Any]) -> list[list[Reason]]:
        """Each part."""
        found = []
        for row, parts in zip(features, self._parts(features), strict=True):
            values = [1.0, *(float(row[FEATURES.index(name)]) for name in COLUMNS)]
            listed = [
                Reason(feature=name, value=value, contribution=round(float(part), 6))
                for name, value, part in zip(("base", *COLUMNS), values, parts, strict=True)
            ]
            found.append(sorted(listed, key=lambda reason: -abs(reason.contribution)))
        return found

    def warm(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to close."""

    def _parts(self, features: NDArray[Any]) -> NDArray[Any]:
        by = {name: features[:, FEATURES.index(name)].astype(np.float64) for name in COLUMNS}
        parts = [
            np.full(len(features), -6.5),
            np.minimum(1.1 * by["amount_to_mean_90d"], 9.0),
            0.8 * by["new_terminal"],
            np.minimum(0.25 * by["account_count_1h"], 3.0),
            -0.2 * np.log1p(by["amount"]) / 5,
            np.minimum(0.02 * by["terminal_count_1h"], 1.0),
            0.4 * by["night"],
        ]
        return np.stack(parts, axis=1)


class Payday:
    """Payments into a store, as a worker of the transactions pipeline takes them."""

    def __init__(self, store: Store) -> None:
        self.tills = Tills(store.url, store.keys.prefix)
        pipeline = TransactionsPipeline(self.tills.settings, self.tills.store, scorer=Plain())
        self.worker = self.tills.worker(pipeline)

    def history(self, now: float, hours: float = 30.0) -> None:
        """A small world until a moment ago."""
        until = int(now * 1000)
        simulator = Simulator(3, Scale(accounts=220, terminals=60, fraud=0.02))
        for made in simulator.between(until - int(hours * HOUR), until):
            found = list(transactions(made))
            for start in range(0, len(found), BATCH):
                self.take(found[start : start + BATCH], now)

    def take(self, payments: Sequence[Transaction], now: float) -> None:
        """Payments through the worker."""
        items = [self._item(payment) for payment in payments]
        self.tills.through(self.worker, items, now)

    def pay(self, name: str, at: float, amount: float, **more: Any) -> Transaction:
        """One payment now."""
        fields: dict[str, Any] = {
            "account": "A1",
            "terminal": "T0001",
            "country": "GB",
            "currency": "GBP",
            **more,
        }
        made = Transaction(id=name, ts=datetime.fromtimestamp(at, UTC), amount=amount, **fields)
        self.take([made], at)
        return made

    def _item(self, payment: Transaction) -> Item:
        return self.tills.item("transactions", payment.account, records.encode(payment))


if __name__ == "__main__":
    import sys
    import time

    Payday(Store(sys.argv[1], "tapewatch")).history(time.time())
