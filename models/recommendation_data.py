"""Interactions for the recommender out of data files: what customers did, with which items, and when.

A file has the columns of the contract (`customer, item, kind, ts, value`; `title` where items have one). UCI Online
Retail (Chen, Sain, Guo 2012, CC BY 4.0) is read in its own columns: cancelled lines (invoice `C...`), lines without
customer, and codes that are no products (POST, M, D, BANK CHARGES, ...: all that do not begin with five digits) are
left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.splits import data_folder
from streams.launch.rows import DataFileError, Tolerance, read_rows

KINDS = ("view", "click", "buy", "dismiss")
DAY = 86_400.0
UCI = "uci-online-retail"
RETAIL_COLUMNS = {"customer": "CustomerID", "item": "StockCode", "ts": "InvoiceDate", "title": "Description"}
_PRODUCT = re.compile(r"\d{5}")


@dataclass(frozen=True)
class Interactions:
    """One row an interaction, in order of time; customers and items are numbers by their first row.

    `days` counts days since 1970; `titles` has one text an item, empty where none is known.
    """

    customers: NDArray[np.int32]
    items: NDArray[np.int32]
    days: NDArray[np.float64]
    customer_names: tuple[str, ...]
    item_names: tuple[str, ...]
    titles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def before(self, day: float) -> Interactions:
        """What was known at this time, with the customers and items that had been met by then."""
        rows = int(np.searchsorted(self.days, day, side="left"))
        people = int(self.customers[:rows].max(initial=-1)) + 1
        things = int(self.items[:rows].max(initial=-1)) + 1
        return Interactions(
            self.customers[:rows],
            self.items[:rows],
            self.days[:rows],
            self.customer_names[:people],
            self.item_names[:things],
            self.titles[:things],
        )

    def paced(self, pace: float) -> Interactions:
        """The same with time running faster by this factor: half-lives and spans are in days of a shop's year."""
        return replace(self, days=self.days * pace)

    def digest(self) -> str:
        """SHA-256 of who met what and when."""
        sha = hashlib.sha256(json.dumps([self.customer_names, self.item_names]).encode())
        for column in (self.customers, self.items, self.days):
            sha.update(column.tobytes())
        return sha.hexdigest()

    def take(self, rows: NDArray[np.bool_]) -> Interactions:
        """Some of the rows, with all names."""
        return replace(self, customers=self.customers[rows], items=self.items[rows], days=self.days[rows])


class Event(NamedTuple):
    """Somebody's interest in something, in seconds since 1970."""

    customer: str
    item: str
    seconds: float
    title: str


def read(files: Sequence[Path | str], mapping: Mapping[str, str]) -> Interactions:
    """The interactions of all files; dismissals are no interest and are left out here.

    A wrong row is reported with its line and skipped; raises DataFileError with more than one in ten wrong.
    """
    events: list[Event] = []
    for path in files:
        tolerance = Tolerance(path)
        for row in read_rows(path, mapping):
            try:
                if row.data is None:
                    raise ValueError(row.error)
                event = _event(row.data)
            except ValueError as error:
                tolerance.reject(row.line, str(error))
                continue
            tolerance.accept()
            if event is not None:
                events.append(event)
        tolerance.judge()
    if not events:
        raise DataFileError(f"{', '.join(map(str, files))}: no interaction but dismissals")
    return gather(events)


def retail(folder: Path | None = None) -> Interactions:
    """UCI Online Retail as it lies in the data folder; raises DataFileError where it does not."""
    found = sorted(((folder or data_folder()) / UCI).glob("retail_*.csv.gz"))
    if not found:
        raise DataFileError(f"{(folder or data_folder()) / UCI}: no retail_*.csv.gz; set TAPEWATCH_DATA")
    return gather(event for path in found for event in _retail_lines(path))


def gather(events: Iterator[Event] | Sequence[Event]) -> Interactions:
    """Events as arrays in order of time; an item's title is the one that most of its rows have."""
    ordered = sorted(events, key=lambda event: event[2])
    customers: dict[str, int] = {}
    items: dict[str, int] = {}
    titles: defaultdict[int, Counter[str]] = defaultdict(Counter)
    who = np.empty(len(ordered), np.int32)
    what = np.empty(len(ordered), np.int32)
    for row, (customer, item, _, title) in enumerate(ordered):
        who[row] = customers.setdefault(customer, len(customers))
        what[row] = items.setdefault(item, len(items))
        if title:
            titles[int(what[row])][title] += 1
    named = tuple(titles[i].most_common(1)[0][0] if titles[i] else "" for i in range(len(items)))
    days = np.array([event[2] for event in ordered], np.float64) / DAY
    return Interactions(who, what, days, tuple(customers), tuple(items), named)


def _event(data: Mapping[str, Any]) -> Event | None:
    if "InvoiceNo" in data:  # its columns need no --map
        ours = {mine: data[theirs] for mine, theirs in RETAIL_COLUMNS.items() if theirs in data}
        return _retail_event({**data, **ours})
    customer, item = (str(data.get(name) or "").strip() for name in ("customer", "item"))
    if not customer or not item:
        raise ValueError("no customer" if not customer else "no item")
    kind = str(data.get("kind") or "buy").strip()
    if kind not in KINDS:
        raise ValueError(f"kind {kind[:40]!r} is none of {', '.join(KINDS)}")
    seconds = _seconds(data.get("ts"))
    title = data.get("title")
    if kind == "dismiss":
        return None
    return Event(customer, item, seconds, title.strip() if isinstance(title, str) else "")


def _seconds(value: object) -> float:
    """A time on the wire, or seconds since 1970 (as public sets of user, item, time have it)."""
    text = str(value if value is not None else "").strip()
    if not text:
        raise ValueError("no ts")
    try:
        seconds = float(text)
    except ValueError:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"ts {text[:40]!r} is no time") from None
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < 1e11:
        raise ValueError(f"ts {text[:40]!r} is out of range")
    return seconds


def _retail_lines(path: Path) -> Iterator[Event]:
    for row in read_rows(path, RETAIL_COLUMNS):
        event = _retail_event(row.data or {})
        if event is not None:
            yield event


def _retail_event(data: Mapping[str, Any]) -> Event | None:
    """A line of Online Retail with the contract's columns mapped; raises ValueError where a number is none."""
    code = str(data.get("item") or "").strip().upper()
    customer = str(data.get("customer") or "").partition(".")[0]
    if not customer or not _PRODUCT.match(code) or str(data["InvoiceNo"]).upper().startswith("C"):
        return None
    if float(data.get("Quantity") or 0) <= 0 or float(data.get("UnitPrice") or 0) <= 0:
        return None
    return Event(customer, code, _seconds(data.get("ts")), " ".join(str(data.get("title") or "").split()))
