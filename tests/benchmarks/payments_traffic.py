"""Payments for benchmarks: the Handbook's where they lie beside the checkout, else simulated; and a skewed stream."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streams.payments.history import DAY
from streams.payments.population import Scale
from streams.payments.simulator import Simulator, transactions
from streams.records import milliseconds

HANDBOOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "fraud-handbook-simulated"
HEAVY = 4  # terminals of the skewed stream that take HEAVY_SHARE of all payments
HEAVY_SHARE = 0.9


class Paid(NamedTuple):
    """One payment; `at` in ms since 1970."""

    at: int
    account: str
    terminal: str
    cents: int


def real(count: int, until: int) -> tuple[list[Paid], str]:
    """So many payments in order of time, the last one at `until` (ms); and where they are from."""
    files = sorted(HANDBOOK.glob("transactions_*.csv.gz"))
    found = list(islice(_handbook(files) if files else _simulated(), count))
    shift = until - found[-1].at
    return [one._replace(at=one.at + shift) for one in found], "Handbook" if files else "simulator"


def simulated(count: int, until: int) -> list[Paid]:
    """So many payments of the simulator, in order of time, the last one at `until` (ms): weeks of 600 accounts."""
    found = list(islice(_simulated(Scale(accounts=600, terminals=200)), count))
    shift = until - found[-1].at
    return [one._replace(at=one.at + shift) for one in found]


def skewed(count: int, until: int, accounts: int = 5_000) -> list[Paid]:
    """Four terminals take nine tenths of the payments of thirty days."""
    generator = random.Random(8)
    times = sorted(until - generator.randrange(30 * DAY) for _ in range(count))
    return [
        Paid(
            at,
            f"a{generator.randrange(accounts)}",
            f"t{generator.randrange(HEAVY)}" if generator.random() < HEAVY_SHARE else f"t{generator.randrange(9_000)}",
            generator.randrange(1, 30_000),
        )
        for at in times
    ]  # fmt: skip


def disturbed(payments: Sequence[Paid], seed: int = 3) -> list[tuple[str, Paid]]:
    """In order of arrival with ids: one in twenty is up to a day late, one in fifty comes twice."""
    generator = random.Random(seed)
    arrivals = []
    for index, one in enumerate(payments):
        late = generator.randrange(DAY) if generator.random() < 0.05 else 0
        arrivals.append((one.at + late, index, one))
        if generator.random() < 0.02:
            arrivals.append((one.at + late + generator.randrange(DAY // 4), index, one))
    arrivals.sort(key=lambda arrival: arrival[:2])
    return [(f"p{index}", one) for _, index, one in arrivals]


def _handbook(files: Sequence[Path]) -> Iterator[Paid]:
    for file in files:
        with gzip.open(file, "rt") as lines:
            for row in csv.DictReader(lines):
                at = int(np.datetime64(row["TX_DATETIME"].replace(" ", "T"), "ms").astype(np.int64))
                yield Paid(at, row["CUSTOMER_ID"], row["TERMINAL_ID"], round(float(row["TX_AMOUNT"]) * 100))


def _simulated(scale: Scale | None = None) -> Iterator[Paid]:
    made = Simulator(scale=scale) if scale else Simulator()
    for day in range(20_000, 21_000):
        for record in transactions(made.day(day)):
            yield Paid(milliseconds(record.ts), record.account, record.terminal, round(record.amount * 100))
