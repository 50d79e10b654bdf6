"""The recommendations pipeline on a real store: lists right after an interaction, nothing that must not come back."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streams.guard import Guard, Item, Out
from streams.metrics import Metrics
from streams.recommendations import RecommendationsPipeline
from streams.records import Interaction, Recommendations, Record, decode
from streams.records import Item as CatalogueRecord
from streams.settings import Settings
from streams.state.recommended import recommended
from streams.state.store import Store

NOW = float(int(time.time()))
SHELVES = ("garden rake", "garden spade", "garden hose", "tea cup", "tea pot", "tea towel")


class Counter:
    """A guard over a store of its own prefix; offsets go on from call to call, a new worker can take over."""

    def __init__(self, url: str, prefix: str) -> None:
        self.settings = replace(Settings(), kafka="x:1", redis=url, prefix=prefix)
        self.store = Store(url, prefix)
        self.offsets: dict[str, int] = {}
        self.number = 0
        self.start()

    def start(self) -> None:
        """A new worker: whatever the last one held in memory is gone."""
        self.pipeline = RecommendationsPipeline(self.settings, self.store)
        kinds: dict[str, type[Record]] = {
            self.settings.topic("interactions"): Interaction,
            self.settings.topic("items"): CatalogueRecord,
        }
        self.guard: Guard[Any] = Guard(self.pipeline, self.store, kinds)

    def take(
        self, short: str, rows: Sequence[dict[str, Any]], now: float = NOW, again: bool = False
    ) -> list[Out]:
        """These records through the guard as one batch of one partition; `again`: as delivered before."""
        topic, items = self.settings.topic(short), []
        if again:
            self.offsets[topic] -= len(rows)
            self.number -= len(rows)
        for row in rows:
            self.number += 1
            offset = self.offsets[topic] = self.offsets.get(topic, -1) + 1
            ts = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.pop("at", now - 5)))
            raw = json.dumps({"id": f"{short}-{self.number}", "ts": ts, **row}).encode()
            items.append(Item(topic, "life", 0, offset, b"k", raw, offset - 1 if offset else None))
            row["at"] = now - 5
        self.guard.prepare(items, now)
        self.guard.commit(items, now)
        return self.guard.outputs(items, now)

    def act(self, customer: str, item: str, kind: str, now: float = NOW) -> list[dict[str, Any]]:
        """One interaction, and the customer's list as served after it."""
        self.take("interactions", [{"customer": customer, "item": item, "kind": kind}], now)
        return self.served(customer)

    def served(self, customer: str, **wanted: Any) -> list[dict[str, Any]]:
        return recommended(self.store, customer, **wanted)


@pytest.fixture
def counter(store_url: str, unique: str) -> Iterator[Counter]:
    made = Counter(store_url, unique)
    made.take("items", [{"item": f"i{n}", "title": title} for n, title in enumerate(SHELVES)])
    yield made
    made.store.close()


def names(places: Sequence[dict[str, Any]]) -> list[str]:
    return [place["item"] for place in places]


def test_an_interaction_changes_the_served_list_at_once(counter: Counter) -> None:
    """What is like the item just met leads the list, which its reason names; another interest changes it."""
    first = counter.act("ann", "i0", "buy")
    assert set(names(first)[:2]) == {"i1", "i2"}
    assert first[0]["reason"] == "like i0"
    assert first[0]["title"] in ("garden spade", "garden hose")
    for item in ("i3", "i4"):
        later = counter.act("ann", item, "buy")
    assert names(later)[0] == "i5"


def test_what_is_owned_or_dismissed_never_comes_back(counter: Counter) -> None:
    """Not in lists made later, not after a restart, not by a redelivery or a late record."""
    counter.act("ann", "i0", "buy")
    counter.act("ann", "i1", "dismiss")
    shown = names(counter.act("ann", "i2", "click"))
    assert {"i0", "i1"}.isdisjoint(shown)
    counter.take("interactions", [{"customer": "ann", "item": "i2", "kind": "click"}], again=True)
    counter.start()
    counter.take("interactions", [{"customer": "ann", "item": "i0", "kind": "view", "at": NOW - 900}])
    assert {"i0", "i1"}.isdisjoint(names(counter.served("ann")))


def test_a_list_made_before_a_purchase_is_checked_when_it_is_read(counter: Counter) -> None:
    """The store's list may be older than the customer's last record: what is owned by then is not shown."""
    shown = counter.act("ann", "i0", "view")
    bought = shown[0]["item"]
    key = counter.store.keys.met("ann")
    counter.store.client.hset(key, bought, f"{int(NOW * 1000)}:o")
    assert bought not in names(counter.served("ann"))


def test_inactive_and_excluded_items_are_not_shown_and_the_latest_record_wins(counter: Counter) -> None:
    """An item that the catalogue takes back is gone at once, and only a later record brings it back."""
    assert "i1" in names(counter.act("ann", "i0", "view"))
    assert "i1" not in names(counter.served("ann", exclude={"i1"}))
    gone = {"item": "i1", "title": "garden spade", "active": False}
    counter.take("items", [{**gone, "at": NOW - 2}])
    assert "i1" not in names(counter.served("ann"))
    counter.take("items", [{**gone, "active": True, "at": NOW - 3}])
    assert "i1" not in names(counter.act("ann", "i2", "view"))
    counter.take("items", [{**gone, "active": True, "at": NOW - 1}])
    assert "i1" in names(counter.act("ann", "i2", "click"))


def test_a_new_item_is_recommendable_on_arrival(counter: Counter) -> None:
    """A catalogue record is enough: who likes what it is like sees it in the next list."""
    counter.act("ann", "i0", "buy")
    counter.take("items", [{"item": "new", "title": "garden rake set"}])
    assert names(counter.act("ann", "i1", "view"))[0] == "new"


def test_strangers_see_what_is_asked_for(counter: Counter) -> None:
    """Somebody who is not known gets what others met, without what is excluded."""
    for customer in ("ann", "bob", "eve"):
        counter.act(customer, "i4", "view")
    counter.pipeline.tick(counter.store, {}, NOW + 60)
    assert names(counter.served("nobody"))[0] == "i4"
    assert "i4" not in names(counter.served("nobody", exclude={"i4"}))


def test_what_is_published_is_what_the_contract_says(counter: Counter) -> None:
    """One record an interaction, with its id and its customer as key; a catalogue record publishes nothing."""
    rows = [
        {"customer": "ann", "item": "i0", "kind": "buy"},
        {"customer": "bob", "item": "i3", "kind": "view"},
    ]
    outs = counter.take("interactions", rows)
    assert [out.key for out in outs] == [b"ann", b"bob"]
    assert {out.topic for out in outs} == {counter.settings.topic("recommendations")}
    made = [decode(Recommendations, out.value, NOW) for out in outs]
    assert [one.customer for one in made] == ["ann", "bob"]
    assert all(one.items and one.model == "recommendations/untrained" for one in made)
    assert counter.take("items", [{"item": "x", "title": "x"}]) == []


def test_a_redelivery_publishes_again_and_counts_nothing_twice(counter: Counter) -> None:
    """The same record at the same place leaves demand and customer as they were."""
    rows = [{"customer": "ann", "item": "i0", "kind": "buy"}]
    first = counter.take("interactions", rows)
    before = counter.store.client.hgetall(counter.store.keys.ever())
    again = counter.take("interactions", rows, again=True)
    assert [out.key for out in again] == [out.key for out in first]
    assert counter.store.client.hgetall(counter.store.keys.ever()) == before == {b"i0": b"1"}


def test_the_worker_answers_over_http(counter: Counter) -> None:
    """`GET /recommend/CUSTOMER` gives the served list, with k and exclude; wrong values are told with status 400."""
    counter.act("ann b/c", "i0", "buy")
    metrics = Metrics("recommendations", counter.store)
    base = f"http://{metrics.serve('127.0.0.1', 0, gets=counter.pipeline.gets())}"

    def get(path: str) -> Any:
        with urllib.request.urlopen(base + path, timeout=10) as reply:
            return json.loads(reply.read())

    assert get("/recommend/ann%20b%2Fc") == counter.served("ann b/c")
    assert names(get("/recommend/ann%20b%2Fc?k=2&exclude=i1,i3")) == names(
        counter.served("ann b/c", k=2, exclude={"i1", "i3"})
    )
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get("/recommend/ann?k=0")
    with urllib.request.urlopen(base + "/metrics", timeout=10) as reply:
        assert b"tapewatch_records_total" in reply.read()
