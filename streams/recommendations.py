"""Recommendations: from an interaction on Kafka to the customer's fresh list, in the store and on a topic.

`prepare` says what the store has to note, `recommendations.lua` notes it and answers with what the customer has met,
`settle` makes the lists of the batch's customers, `derive` publishes them. How a list is made is
`recommending/room.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engines.bundle import active_folder, open_bundle
from streams import records
from streams.endpoint import Lookup
from streams.guard import Item, Out, Prepared
from streams.recommending.model import Model, open_model
from streams.recommending.room import DAY_MS, Asked, Room, Shown, read_met
from streams.records import Interaction, Recommendations, Recommended
from streams.settings import Settings
from streams.state.recommended import LIST_MS, STRANGER, Kept, answer, read_asked, read_catalogue
from streams.state.store import Store, as_text

log = logging.getLogger("tapewatch.recommendations")

TASK = "recommendations"
KEPT = 50  # places of a list in the store: what is excluded on request is made up for
PUBLISHED = 10
DAYS_KEPT = 61
MOST_MET = 1000  # items that a customer only looked at, or owns, before the oldest looked-at go
ASK_AGAIN = 10.0  # seconds between two readings of the demand


def open_pipeline(settings: Settings, store: Store, threads: int) -> RecommendationsPipeline:
    """The pipeline with its bundle, or untrained where there is none or the engine is `tiny`."""
    model = None
    if settings.engine != "tiny" and (settings.bundles / TASK / "active").exists():
        model = open_model(
            open_bundle(active_folder(settings.bundles, TASK)), "auto", threads
        )  # trees: one runtime
    elif settings.engine != "tiny":
        log.warning("no bundle of recommendations: lists come from titles and demand; train one")
    return RecommendationsPipeline(settings, store, model)


class RecommendationsPipeline:
    """The recommendations pipeline; `guard.Pipeline` says what each method is for."""

    name = "recommendations"
    scripts = ("recommendations", "guard")
    piece = 64
    batch = 256

    def __init__(self, settings: Settings, store: Store, model: Model | None = None) -> None:
        self._topic = settings.topic("recommendations")
        self._store, self._opened = store, model
        self.model = model.name if model else f"{TASK}/untrained"
        if model is None:
            self._room = Room()
        else:
            chosen = model.settings
            self._room = Room(model.knowledge, model.rank, pace=chosen.pace, diversity=chosen.diversity)
        self._lists: dict[str, list[Shown]] = {}
        self._version = ""
        self._asked_at = 0.0
        self._days: dict[int, dict[str, int]] = {}

    def prepare(self, batch: Sequence[records.Record], now: float) -> list[Prepared]:  # noqa: ARG002
        """What recommendations.lua is to note."""
        return [Prepared(_effect(record)) for record in batch]

    def settings(self) -> dict[str, Any]:
        """For recommendations.lua."""
        return {"day_ms": DAY_MS, "days_kept": DAYS_KEPT, "met_max": MOST_MET}

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        """New items into the room, and a fresh list into the store for each customer of the batch."""
        self._refresh(store, now)
        latest: dict[str, Any] = {}
        for item in done:
            if item.status not in ("new", "again"):
                continue
            if isinstance(item.record, records.Item):
                if item.decision == [1]:
                    self._room.put(item.record.item, item.record.title, item.record.active)
            elif isinstance(item.record, Interaction):
                latest[item.record.customer] = item.decision
        met = {customer: read_met(_pairs(decision)) for customer, decision in latest.items()}
        for mine in met.values():
            self._room.know(mine)  # all of them first: each new item costs the room a look at everything
        self._lists = {
            customer: self._room.list_for(customer, mine, now, KEPT) for customer, mine in met.items()
        }
        self._keep(store, self._lists, now)

    def derive(self, record: Any, prepared: Prepared, decision: Any, now: float) -> Iterator[Out]:  # noqa: ARG002
        """The customer's list; a catalogue record publishes nothing."""
        if not isinstance(record, Interaction):
            return
        made = Recommendations(
            id=record.id,
            ts=record.ts,
            scored_at=records.as_time(now),
            customer=record.customer,
            items=[
                Recommended(item=item, score=score, reason=reason)
                for item, score, reason in self._lists.get(record.customer, [])[:PUBLISHED]
            ],
            model=self.model,
        )
        yield Out(self._topic, record.customer.encode(), records.encode(made))

    def gets(self) -> dict[str, Lookup]:
        """`GET /recommend/CUSTOMER` of the worker."""
        return {"/recommend/": lambda customer, query: answer(self._store, customer, query)}

    def mask(self, raw: bytes) -> bytes:
        """Interactions name customers by id only: kept as they are."""
        return raw

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:  # noqa: ARG002
        """The catalogue at once, the demand now and then, and with it what strangers are shown."""
        if self._refresh(store, now):
            self._keep(store, {STRANGER: self._room.list_for(STRANGER, {}, now, KEPT)}, now)

    def close(self) -> None:
        """Give the engine back."""
        if self._opened is not None:
            self._opened.engine.close()

    def _refresh(self, store: Store, now: float) -> bool:
        """Whether the demand was read again."""
        version = as_text(store.call(lambda: store.client.get(store.keys.version())) or "0")
        if version != self._version:
            for item, title, active in read_catalogue(store):
                self._room.put(item, title, active)
            self._version = version
        if now - self._asked_at < ASK_AGAIN:
            return False
        today = int(now * 1000 // DAY_MS)
        days, ever, first = read_asked(store, today, DAYS_KEPT, self._days)
        self._days = days
        self._room.ask(Asked(days, ever, first))
        self._asked_at = now
        return True

    def _keep(self, store: Store, lists: Mapping[str, Sequence[Shown]], now: float) -> None:
        if not lists:
            return
        pipe = store.client.pipeline(transaction=False)
        for customer, shown in lists.items():
            kept = Kept(records.as_time(now), self.model, [tuple(place) for place in shown])
            pipe.set(store.keys.shown(customer), msgspec.json.encode(kept), px=LIST_MS)
        store.call(pipe.execute)


def _effect(record: records.Record) -> dict[str, Any]:
    if isinstance(record, records.Item):
        kept = {"title": record.title, "tags": record.tags, "active": record.active}
        return {
            "t": "item",
            "i": record.item,
            "ts": records.milliseconds(record.ts),
            "v": msgspec.json.encode(kept).decode(),
        }
    if not isinstance(record, Interaction):
        raise TypeError(f"{type(record).__name__} is neither an interaction nor an item")
    return {
        "t": "act",
        "c": record.customer,
        "i": record.item,
        "k": record.kind,
        "ts": records.milliseconds(record.ts),
    }


def _pairs(flat: Sequence[bytes | str]) -> Iterator[tuple[str, str]]:
    texts = [as_text(part) if isinstance(part, bytes) else part for part in flat]
    return zip(texts[::2], texts[1::2], strict=True)
