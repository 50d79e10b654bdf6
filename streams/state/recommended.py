"""The read side of recommendations: the list as it may be shown now, the catalogue, the demand.

A list is checked against what the customer owns and dismissed and against the catalogue at the moment it is read, in
one transaction: what came after it was made can take items out of it, never in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from streams.recommending.room import may_show, read_met
from streams.records import Malformed
from streams.state.store import Store, as_text

LIST_MS = 30 * 86_400_000
STRANGER = ""  # the customer that nobody is: the list of those who are not known
MOST = 50


class Kept(msgspec.Struct, frozen=True):
    """A list in the store: item, score, reason of each place."""

    scored_at: datetime
    model: str
    items: list[tuple[Any, ...]]


class CatalogueItem(msgspec.Struct, frozen=True):
    """What is kept of a catalogue record."""

    title: str
    tags: list[str]
    active: bool


def recommended(
    store: Store, customer: str, k: int = 10, exclude: Collection[str] = ()
) -> list[dict[str, Any]]:
    """At most k places `{item, score, reason, title, model, scored_at}`; strangers get what is asked for by many."""

    def read() -> list[Any]:
        pipe = store.client.pipeline(transaction=True)
        pipe.get(store.keys.shown(customer))
        pipe.get(store.keys.shown(STRANGER))
        pipe.hgetall(store.keys.met(customer))
        found: list[Any] = pipe.execute()
        return found

    own, others, mine = store.call(read)
    met = read_met((as_text(item), as_text(text)) for item, text in mine.items())
    lists = [msgspec.json.decode(raw, type=Kept) for raw in (own, others) if raw]
    named = [str(place[0]) for kept in lists for place in kept.items]
    catalogue = _catalogue(store, named)
    made: list[dict[str, Any]] = []
    seen = set(exclude)
    for kept in lists:
        for item, score, reason in kept.items:
            if item in seen or not may_show(item, met, lambda name: _active(catalogue, name)):
                continue
            seen.add(item)
            title = catalogue[item].title if item in catalogue else ""
            made.append(
                {
                    "item": item,
                    "score": score,
                    "reason": reason,
                    "title": title,
                    "model": kept.model,
                    "scored_at": kept.scored_at.isoformat(),
                }
            )
    return made[: max(0, min(k, MOST))]


def answer(store: Store, customer: str, query: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """`GET /recommend/CUSTOMER?k=&exclude=`, `exclude` once or more, with commas; raises Malformed or Unavailable."""
    asked = query.get("k", ["10"])[-1]
    if not customer:
        raise Malformed("name a customer: /recommend/CUSTOMER?k=10&exclude=ITEM,ITEM")
    if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked) <= MOST:
        raise Malformed(f"k: {asked!r} is not between 1 and {MOST}")
    exclude = {item for text in query.get("exclude", []) for item in text.split(",") if item}
    return recommended(store, customer, int(asked), exclude)


def read_catalogue(store: Store) -> Iterator[tuple[str, str, bool]]:
    """Item, title, whether it is active, of each record of the catalogue."""
    found = store.call(lambda: store.client.hgetall(store.keys.catalogue()))
    for item, raw in found.items():
        kept = _item(raw)
        yield as_text(item), kept.title, kept.active


def read_asked(
    store: Store, today: int, days_kept: int, known: Mapping[int, dict[str, int]]
) -> tuple[dict[int, dict[str, int]], dict[str, int], dict[str, int]]:
    """Day -> item -> count, counts in all, first ms; days before yesterday that are `known` are not read again."""
    wanted = list(range(today - days_kept, today + 1))
    fresh = [day for day in wanted if day >= today - 1 or day not in known]

    def read() -> list[Any]:
        pipe = store.client.pipeline(transaction=False)
        for day in fresh:
            pipe.hgetall(store.keys.asked(day))
        pipe.hgetall(store.keys.ever())
        pipe.hgetall(store.keys.first())
        found: list[Any] = pipe.execute()
        return found

    *counts, ever, first = [_numbers(found) for found in store.call(read)]
    days = {day: known[day] for day in wanted if day in known} | dict(zip(fresh, counts, strict=True))
    return days, ever, first


def _catalogue(store: Store, items: list[str]) -> dict[str, CatalogueItem]:
    if not items:
        return {}
    found = store.call(lambda: store.client.hmget(store.keys.catalogue(), items))
    return {item: _item(raw) for item, raw in zip(items, found, strict=True) if raw}


def _active(catalogue: Mapping[str, CatalogueItem], item: str) -> bool:
    return item not in catalogue or catalogue[item].active


def _item(raw: bytes | str) -> CatalogueItem:
    return msgspec.json.decode(as_text(raw).partition(":")[2], type=CatalogueItem)


def _numbers(found: Mapping[bytes, bytes]) -> dict[str, int]:
    return {as_text(item): int(count) for item, count in found.items()}
