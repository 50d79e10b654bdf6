"""`python -m models.fraud_shipped`: the released fraud model again, from payments of the project's own simulator.

Another seed than the live world of `tapewatch up`, with as many payments an account and accounts a terminal. A fraud is
known when it is charged back or an analyst finds it, as the simulator says; one that nobody reports is trained on as
what it looks like, an honest payment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models.fraud_data import Payments
from models.fraud_train import make
from models.train import BUNDLES, Period, next_version
from streams.payments import money
from streams.payments.history import DAY
from streams.payments.population import COUNTRIES, Scale
from streams.payments.replay import NEVER, Table
from streams.payments.simulator import NEVER as UNSAID
from streams.payments.simulator import Simulator

SEED, FIRST = 2611, 20_454  # 2026-01-01
RIPE = 30.0  # days: four in five of those that are charged back at all are by then
WARM = 30  # days that only build histories


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and publish; the bundle is not activated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    out = options.out or next_version(BUNDLES / "transactions", datetime.now(UTC))
    payments = world(options.accounts, options.days)
    since = (FIRST + WARM) * DAY / 1000
    source = (
        f"simulator of this project, seed {SEED}, {options.accounts} accounts, {options.days} days;"
        " no real payments, no licence but the project's own"
    )
    folder = make(payments, Period(since, (FIRST + options.days) * DAY / 1000), out, RIPE, source)
    sys.stdout.write(f"{folder}\n")


def world(accounts: int, days: int) -> Payments:
    """So many days of payments as they would have been read from a file, labels as they were reported by the end."""
    simulator = Simulator(SEED, Scale(accounts=accounts, terminals=max(40, accounts // 5), per_day=12))
    parts = list(simulator.between(FIRST * DAY, (FIRST + days) * DAY))
    at, account, terminal, amount, country, back, verdict, fraud = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in (
            "at",
            "account",
            "terminal",
            "amount",
            "country",
            "charged_back_at",
            "verdict_at",
            "fraud",
        )
    )
    rates = np.array([money.RATES[each.currency] for each in COUNTRIES])
    cents = np.rint(amount * rates[country] * 100).astype(np.int64)
    said = [np.where(column == UNSAID, NEVER, column) for column in (back, verdict)]
    known = np.where(fraud, np.minimum(*said), NEVER)
    label = (known < (FIRST + days) * DAY).astype(np.int8)
    codes = np.unique(account, return_inverse=True)[1].astype(np.int64)
    table = Table(
        at, cents, codes, terminal.astype(np.int64), country + 1, np.where(label == 1, known, NEVER)
    )
    return Payments(table, label)


if __name__ == "__main__":
    main()
