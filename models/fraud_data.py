"""Labelled payments: a user's files as the table that is replayed, and what was known of them when."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from streams.launch.rows import DataFileError, Tolerance, read_rows
from streams.payments import money
from streams.payments.history import DAY
from streams.payments.replay import NEVER, Table

EARLIEST = 946_684_800.0  # 2000-01-01, as on the wire
AHEAD = 300.0  # seconds that a time may be ahead of the clock, as on the wire
PROGRESS = 200_000  # rows between two lines of progress
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "legitimate": 0, "fraud": 1}


@dataclass(frozen=True)
class Payments:
    """Payments in order of time (stable), each with its label; columns [n], times in ms since 1970."""

    table: Table
    label: NDArray[np.int8]

    @property
    def day(self) -> NDArray[np.int64]:
        """Days since 1970, UTC."""
        return self.table.time // DAY


def read(
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    label_delay: float,
    until: float | None = None,
    report: TextIO | None = None,
) -> Payments:
    """The payments of all files, those at `until` (unix seconds) or later left out.

    Columns are named as in the source record, and `label` (0 or 1); `mapping` renames them. A fraud is known
    `label_delay` days after its payment. Raises DataFileError where a file cannot be read, or more than one row in ten
    is wrong; wrong rows are reported with their line and skipped.
    """
    out = report or sys.stderr
    codes: tuple[dict[str, int], ...] = ({}, {}, {"": 0})
    rows: list[tuple[int, int, int, int, int, int]] = []
    now = time.time()
    for path in files:
        tolerance = Tolerance(path, out)
        for row in read_rows(path, mapping):
            try:
                if row.data is None:
                    raise ValueError(row.error)
                found = _payment(row.data, codes, now)
            except ValueError as error:
                tolerance.reject(row.line, str(error))
                continue
            tolerance.accept()
            if until is None or found[0] < until * 1000:
                rows.append(found)
            if tolerance.good % PROGRESS == 0:
                out.write(f"{path}: {tolerance.good:,} payments read\n")
        tolerance.judge()
    if not rows:
        raise DataFileError(f"no payment before --until in {', '.join(map(str, files))}")
    columns = np.array(rows, np.int64)
    columns = columns[np.argsort(columns[:, 0], kind="stable")]
    label = columns[:, 5].astype(np.int8)
    known = np.where(label == 1, columns[:, 0] + int(label_delay * DAY), NEVER)
    when, cents, account, terminal, country = columns[:, :5].T.copy()
    return Payments(Table(when, cents, account, terminal, country, known), label)


def _payment(
    data: Mapping[str, Any], codes: tuple[dict[str, int], ...], now: float
) -> tuple[int, int, int, int, int, int]:
    """A row as (time, cents, account, terminal, country, label); raises ValueError that says what is wrong."""
    for name in ("ts", "account", "terminal", "amount", "label"):
        if data.get(name) in (None, ""):
            raise ValueError(f"no {name} (--map {name}=COLUMN renames one)")
    try:
        when = datetime.fromisoformat(str(data["ts"]).strip())
    except ValueError:
        raise ValueError(f"ts {str(data['ts'])[:40]!r} is not a time like 2026-11-21T09:30:00Z") from None
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not EARLIEST <= seconds <= now + AHEAD:
        raise ValueError(f"ts {data['ts']} is before 2000 or ahead of the clock")
    try:
        amount = float(data["amount"])
    except (OverflowError, TypeError, ValueError):
        amount = math.nan
    if not math.isfinite(amount):
        raise ValueError(f"amount {str(data['amount'])[:40]!r} is not a number")
    label = _LABELS.get(str(data["label"]).strip().lower())
    if label is None:
        raise ValueError(f"label {str(data['label'])[:40]!r} is neither 0 nor 1")
    accounts, terminals, countries = codes
    currency = str(data.get("currency") or "USD")
    return (
        round(seconds * 1000),
        money.cents(amount, currency, money.RATES),
        accounts.setdefault(str(data["account"]), len(accounts)),
        terminals.setdefault(str(data["terminal"]), len(terminals)),
        countries.setdefault(str(data.get("country") or ""), len(countries)),
        label,
    )


def known_before(payments: Payments, since: int) -> NDArray[np.bool_]:
    """Whether a fraud of the payment's account was known by the end of the payment's day [n].

    Frauds count that became known at `since` (ms) or later. With a delay of seven days and `since` a week before the
    test, this is the Handbook's removal of known compromised cards (Le Borgne et al. 2022, get_train_test_set).
    """
    table = payments.table
    counted = (payments.label == 1) & (table.known >= since)
    first = np.full(int(table.account.max()) + 1, NEVER, np.int64)
    np.minimum.at(first, table.account[counted], table.known[counted] // DAY)
    known: NDArray[np.bool_] = first[table.account] <= payments.day
    return known
