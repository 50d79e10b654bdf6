"""What is known, who is judged, and what each of them wanted: by time, or by leaving each customer's last item out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.recommendation_data import Interactions
from streams.recommending.knowledge import Ints


class Fold(NamedTuple):
    """`wanted` has for each of `customers` the known items, new to the customer, that came after `now`."""

    known: Interactions
    now: float
    customers: Ints
    wanted: list[Ints]


def by_time(all_of: Interactions, start: float, end: float) -> Fold:
    """Known: before `start`; judged: customers known by then, on `start` <= day < `end`."""
    known = all_of.before(start)
    first, last = np.searchsorted(all_of.days, [start, end], side="left")
    later = (all_of.customers[first:last], all_of.items[first:last])
    return _fold(known, start, *later)


def leave_last_out(all_of: Interactions) -> Fold:
    """Known: all but each customer's last interaction, which is judged; customers with two interactions at least."""
    last = np.zeros(len(all_of), np.bool_)
    _, places = np.unique(all_of.customers[::-1], return_index=True)
    places = len(all_of) - 1 - places
    counts = np.bincount(all_of.customers, minlength=len(all_of.customer_names))
    last[places[counts[all_of.customers[places]] > 1]] = True
    known = all_of.take(~last)
    now = float(all_of.days[-1]) + 1e-3 if len(all_of) else 0.0
    return _fold(known, now, all_of.customers[last], all_of.items[last])


def _fold(known: Interactions, now: float, customers: Ints, items: Ints) -> Fold:
    width = len(known.item_names)
    inside = (customers < len(known.customer_names)) & (items < width)
    keys = np.unique(customers[inside].astype(np.int64) * width + items[inside])
    had = np.unique(known.customers.astype(np.int64) * width + known.items)
    met = np.bincount(known.items, minlength=width) > 0
    histories = np.bincount(known.customers, minlength=len(known.customer_names)) > 0
    fresh = keys[~np.isin(keys, had)]
    fresh = fresh[met[fresh % max(1, width)] & histories[fresh // max(1, width)]]
    who, starts = np.unique(fresh // max(1, width), return_index=True)
    wanted: list[NDArray[np.int64]] = np.split(fresh % max(1, width), starts[1:]) if len(who) else []
    return Fold(known, now, who.astype(np.int32), [items.astype(np.int32) for items in wanted])
