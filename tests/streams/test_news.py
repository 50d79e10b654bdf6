"""The news pipeline on a real store with the engine for tests: what a headline leaves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.swap import HotSwap, Version
from engines.text import open_classifier
from streams.guard import Guard, Item, Out
from streams.news import NewsPipeline
from streams.records import News, NewsScored, Signal, decode, short
from streams.settings import Settings
from streams.state.store import Store
from streams.windows.trend import trend

NOW = float(int(time.time()))  # the store has a clock of its own: keys expire by it
HOUR = 3600.0


class Desk:
    """A news guard over a store of its own prefix; offsets go on from call to call."""

    def __init__(self, url: str, prefix: str) -> None:
        self.settings = replace(Settings(), kafka="x:1", redis=url, prefix=prefix, engine="tiny")
        self.store = Store(url, prefix)
        self.topic = self.settings.topic("news")
        classifier = open_classifier(self.settings.bundles, "news", "tiny")
        self.pipeline = NewsPipeline(self.settings, classifier=classifier)
        self.guard: Guard[News] = Guard(self.pipeline, self.store, {self.topic: News})
        self.offset = -1

    def take(self, rows: Sequence[dict[str, Any]], now: float = NOW) -> list[Out]:
        """These headlines through the guard, as one batch of one partition."""
        items = []
        for row in rows:
            previous, self.offset = self.offset, self.offset + 1
            raw = json.dumps({"source": "wire", **row}).encode()
            items.append(
                Item(self.topic, "life", 0, self.offset, b"k", raw, previous if previous >= 0 else None)
            )
        self.guard.prepare(items, now)
        self.guard.commit(items, now)
        return self.guard.outputs(items, now)

    def row(self, entity: str, size: str, at: float) -> dict[str, Any]:
        """The bucket of this size that holds a time."""
        start = int(at * 1000)
        [found] = trend(self.store, entity, size, start, start + 1, int(NOW * 1000))
        return dict(found)


@pytest.fixture
def desk(store_url: str, unique: str) -> Iterator[Desk]:
    made = Desk(store_url, unique)
    yield made
    made.pipeline.close()
    made.store.close()


def row(identity: str, title: str, at: float = NOW - 60, **fields: Any) -> dict[str, Any]:
    """A headline of the wire; `at` in unix seconds."""
    return {
        "id": identity,
        "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        "title": title,
        **fields,
    }


def counts(found: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Negative, neutral, positive, stories, negative stories."""
    names = ("negative", "neutral", "positive", "stories", "negative_stories")
    a, b, c, d, e = (int(found[name]) for name in names)
    return a, b, c, d, e


def test_a_headline_is_counted_for_the_market_and_its_entities_in_every_size(desk: Desk) -> None:
    """Each bucket size of the market and of each entity counts it once, by event time."""
    desk.take([row("1", "Infosys and $QQZ shares plunge")])
    for entity in ("market", "symbol:INFY", "symbol:QQZ"):
        for size in ("1m", "5m", "1h", "1d"):
            assert counts(desk.row(entity, size, NOW - 60)) == (1, 0, 0, 1, 1), (entity, size)


def test_what_is_published_is_what_the_contract_says(desk: Desk) -> None:
    """A scored record with the source's id and key, and one signal for each entity."""
    scored, signal = desk.take([row("a/1", "Infosys shares plunge")])
    record = decode(NewsScored, scored.value, NOW)
    assert (scored.topic, scored.key) == (desk.settings.topic("news.scored"), b"a/1")
    assert (record.id, record.story, record.duplicate_of, record.topics) == ("a/1", "a/1", None, [])
    assert [(e.symbol, e.label) for e in record.entities] == [("INFY", "negative")]
    told = decode(Signal, signal.value, NOW)
    assert (signal.topic, signal.key) == (desk.settings.topic("signals"), b"symbol:INFY")
    assert (told.id, told.kind, told.severity) == ("a/1:sentiment:symbol:INFY", "sentiment", "warning")
    assert told.value < 0
    assert told.evidence == ["a/1"]


def test_a_syndicated_headline_counts_once_as_a_story(desk: Desk) -> None:
    """Copies count as headlines, not as stories, and raise no further signal."""
    title = "Infosys shares plunge as chief executive quits over accounting questions"
    out = desk.take([row("1", title), row("2", f"UPDATE 1-{title}"), row("3", title, source="other")])
    scored = [decode(NewsScored, made.value, NOW) for made in out if made.topic.endswith("scored")]
    assert [(record.story, record.duplicate_of) for record in scored] == [("1", None), ("1", "1"), ("1", "1")]
    assert len(out) == 4
    assert counts(desk.row("symbol:INFY", "5m", NOW - 60)) == (3, 0, 0, 1, 1)


def test_a_late_headline_counts_where_its_bucket_is_kept(desk: Desk) -> None:
    """A headline of ten hours ago is in the 5-minute buckets, and no more in the 1-minute ones."""
    desk.take([row("1", "Infosys shares plunge", NOW - 10 * HOUR)])
    assert counts(desk.row("symbol:INFY", "5m", NOW - 10 * HOUR))[0] == 1
    assert list(desk.store.client.scan_iter(f"{desk.settings.prefix}:trend:1m:*")) == []


def test_order_of_arrival_does_not_change_the_trend(store_url: str, unique: str) -> None:
    """The same distinct headlines in another order give the same counts."""
    words = ("Infosys", "Wipro", "Boeing", "Tesla")
    rows = [
        row(
            f"{i}",
            f"{words[i % 4]} {('plunges', 'rises', 'meets')[i % 3]} case {i * 37} of {i}",
            NOW - 40 * i,
        )
        for i in range(40)
    ]
    found = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        desk = Desk(store_url, unique + name)
        desk.take(order)
        start, end = int((NOW - HOUR) * 1000), int(NOW * 1000)
        found.append([counts(dict(b)) for b in trend(desk.store, "market", "5m", start, end, end)])
    assert found[0] == found[1]
    assert sum(sum(bucket[:3]) for bucket in found[0]) == 40


def test_every_key_expires_but_the_marks_and_the_counts(desk: Desk) -> None:
    """What a headline leaves in the store goes by itself, except the mark and the outcomes."""
    desk.take([row(f"{i}", f"Infosys shares plunge on day {i}", NOW - i) for i in range(20)])
    client, prefix = desk.store.client, desk.settings.prefix
    lasting = {key.decode() for key in client.scan_iter(f"{prefix}:*") if client.ttl(key) == -1}
    assert lasting == {desk.store.keys.marks(desk.topic, "life"), desk.store.keys.outcomes("news")}


HOSTILE = (
    "",
    " ",
    "\u202e\u200b\u0000\ufeff",
    "a\u0301" * 900,
    "\U0001f4a5" * 1_000,
    "Ｉｎｆｏｓｙｓ ѕhares рlunge",
    '{"id": "x"}\n\r\t\\"\\',
    "<script>alert(1)</script> Infosys",
    "$" * 2_000,
    "%s %d {0} ${x}",
)


def test_hostile_titles_are_scored(desk: Desk) -> None:
    """Empty, invisible, huge and code-like titles end as scored records with finite probabilities."""
    out = desk.take([row(f"{i}", title) for i, title in enumerate(HOSTILE)])
    scored = [decode(NewsScored, made.value, NOW) for made in out if made.topic.endswith("scored")]
    assert [record.id for record in scored] == [f"{i}" for i in range(len(HOSTILE))]
    assert desk.store.outcomes("news") == {"scored": len(HOSTILE)}
    feed: list[bytes] = desk.store.client.zrange(desk.store.keys.feed("market"), 0, -1)  # type: ignore[assignment]
    assert all(json.loads(line)["id"] for line in feed)


def test_ids_that_need_escaping_keep_the_feed_readable(desk: Desk) -> None:
    """Quotes, backslashes and slashes in an id come back from the feed as they were."""
    ids = ['a"b', "a\\b", "a/b", "ü\u2028", "x" * 512]
    desk.take([row(identity, f"headline number {i * 7}") for i, identity in enumerate(ids)])
    feed: list[bytes] = desk.store.client.zrange(desk.store.keys.feed("market"), 0, -1)  # type: ignore[assignment]
    found = [json.loads(line) for line in feed]
    assert {line["id"] for line in found} == set(ids)
    assert {line["story"] for line in found} == set(ids)


def test_an_id_may_fill_the_record(desk: Desk) -> None:
    """The scored record has the whole of a long id; what others know of it is short, and signals are good records."""
    ids = ["x" * 200_000, "x" * 200_000 + "y"]
    out = desk.take([row(identity, "$QZZ shares plunge on fraud charges") for identity in ids])
    scored = [decode(NewsScored, made.value, NOW) for made in out if made.topic.endswith("scored")]
    assert [record.id for record in scored] == ids
    assert scored[1].duplicate_of == scored[0].story == short(ids[0])
    [signal] = [decode(Signal, made.value, NOW) for made in out if made.topic.endswith("signals")]
    assert signal.evidence == [short(ids[0])]
    assert max(len(made.key or b"") + len(made.value) for made in out) < 500_000
    feed: list[bytes] = desk.store.client.zrange(desk.store.keys.feed("market"), 0, -1)  # type: ignore[assignment]
    assert {json.loads(line)["id"] for line in feed} == {short(identity) for identity in ids}
    assert max(len(line) for line in feed) < 2_000


def test_feeds_and_the_list_of_entities_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest headlines stay, older ones go."""
    monkeypatch.setitem(desk.pipeline.settings(), "market_feed", 10)
    monkeypatch.setitem(desk.pipeline.settings(), "entities_max", 5)
    desk.take([row(f"{i}", f"$Q{chr(65 + i)}X item {i * 13}", NOW - 100 + i) for i in range(20)])
    client, keys = desk.store.client, desk.store.keys
    feed: list[bytes] = client.zrange(keys.feed("market"), 0, -1)  # type: ignore[assignment]
    assert [json.loads(line)["id"] for line in feed] == [f"{i}" for i in range(10, 20)]
    assert client.zcard(keys.entities()) == 5


def test_a_record_names_what_scored_it(desk: Desk) -> None:
    """When another version takes over before publishing, the record names the version that scored it."""
    classifiers = [open_classifier(desk.settings.bundles, "news", "tiny") for _ in range(2)]
    for number, classifier in enumerate(classifiers, 1):
        classifier.model = f"news/{number}"
    versions = [Version(Path("1"), 1)]
    models = HotSwap(lambda folder: classifiers[int(folder.name) - 1], lambda: versions[-1])
    desk.pipeline._models = models
    item = Item(
        desk.topic,
        "life",
        0,
        0,
        b"k",
        json.dumps({"source": "wire", **row("1", "Shares slump")}).encode(),
        None,
    )
    desk.guard.prepare([item], NOW)
    versions.append(Version(Path("2"), 2))
    assert models.refresh()
    assert desk.pipeline.model == "news/2"
    desk.guard.commit([item], NOW)
    scored = next(out for out in desk.guard.outputs([item], NOW) if out.topic.endswith("scored"))
    assert json.loads(scored.value)["model"] == "news/1"
