"""The guard around every pipeline, on a real store: outcomes, marks, duplicates, bisection, dead letters, the cap."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import redis

from streams.guard import Guard, Item, Out, Prepared, TooManyFailures
from streams.records import News
from streams.state.store import LostPlace, Store, Unavailable, connect, script_source

NOW = 1_795_000_000.0
TOPIC = "t.news"


class Counting:
    """A pipeline without a model: headlines that say so make it fail; the Lua file does nothing but count."""

    name = "counting"
    scripts: tuple[str, ...] = ("counting", "guard")
    piece = 4
    batch = 64

    def __init__(self) -> None:
        self.calls = 0
        self.unavailable = False

    def prepare(self, batch: Sequence[News], now: float) -> list[Prepared]:
        self.calls += 1
        if self.unavailable:
            raise Unavailable("away")
        if any("poison" in record.title for record in batch):
            raise ValueError("the model choked\non it")
        return [Prepared({}, outcome="filtered" if "skip" in record.title else "scored") for record in batch]

    def settings(self) -> dict[str, Any]:
        return {}

    def derive(self, record: News, prepared: Prepared, decision: Any, now: float) -> Iterable[Out]:
        yield Out("t.out", record.id.encode(), b"{}")

    def mask(self, raw: bytes) -> bytes:
        return raw.replace(b"4111", b"****")

    def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
        pass

    def tick(self, store: Store, owned: Mapping[str, Sequence[int]], now: float) -> None:
        pass

    def close(self) -> None:
        pass


EFFECT = """
local function apply(ctx, effect)
  if effect.bad then redis.call('LPUSH', KEYS[1], 'a hash is no list') end
  return false
end
local function recall(ctx, effect) return false end
"""


@pytest.fixture
def store(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    head, guard = script_source("guard").split("\n", 1)
    counting = f"{head}\n{EFFECT}{guard}"
    monkeypatch.setattr(
        "streams.state.store.script_source",
        lambda *names: counting if "guard" in names else script_source(*names),
    )
    client = connect(store_url)
    client.flushdb()
    made = Store(store_url, "t")
    yield made
    made.close()
    client.close()


def items(
    titles: Sequence[str],
    *,
    start: int = 0,
    life: str = "a",
    ids: Sequence[str] | None = None,
    partition: int = 0,
) -> list[Item]:
    """One item a title at consecutive offsets; `{` alone is malformed."""
    made = []
    for index, title in enumerate(titles):
        identity = ids[index] if ids else f"id-{start + index}"
        record = {"id": identity, "ts": "2026-11-18T06:00:00Z", "source": "s", "title": title}
        raw = b"{" if title == "{" else json.dumps(record).encode()
        previous = start + index - 1 if index else None
        made.append(Item(TOPIC, life, partition, start + index, b"k", raw, previous))
    return made


def through(guard: Guard[Any], found: list[Item], now: float = NOW) -> list[Out]:
    guard.prepare(found, now)
    guard.commit(found, now)
    return guard.outputs(found, now)


def guard_of(store: Store, pipeline: Counting | None = None) -> Guard[Any]:
    return Guard(pipeline or Counting(), store, {TOPIC: News})


def test_each_record_ends_in_one_outcome(store: Store) -> None:
    """Scored, filtered, duplicate and dead-letter counts add up to what was read."""
    guard = guard_of(store)
    out = through(guard, items(["a", "{", "skip", "b", "poison", "c"], ids=["1", "2", "3", "1", "5", "6"]))
    expected = {"scored": 2, "filtered": 1, "duplicate": 1, "dead_letter": 2}
    assert store.outcomes("counting") == expected
    assert [made.topic for made in out] == ["t.out", "t.news.dlq", "t.news.dlq", "t.out"]


def test_a_redelivery_changes_nothing_and_publishes_again(store: Store) -> None:
    """The same records at the same offsets are published again and counted once."""
    guard = guard_of(store)
    first = through(guard, items(["a", "{", "b", "poison"]))
    again = through(guard, items(["a", "{", "b", "poison"]))
    assert again == first
    assert store.outcomes("counting") == {"scored": 2, "dead_letter": 2}


def test_a_dead_letter_stays_one_when_it_would_pass_later(store: Store) -> None:
    """A record from the future is a dead letter on redelivery too, though the clock has moved on."""
    guard = guard_of(store)
    found = items(["a"])
    early = NOW - 30 * 86_400
    through(guard, found, early)
    out = through(guard, items(["a"]), NOW)
    assert [made.topic for made in out] == ["t.news.dlq"]
    assert store.outcomes("counting") == {"dead_letter": 1}


def test_an_id_sent_twice_counts_once(store: Store) -> None:
    """The second record of an id is a duplicate: counted as such and not published, redelivered or not."""
    guard = guard_of(store)
    through(guard, items(["a"], ids=["x"]))
    for _ in range(2):
        assert through(guard, items(["a again"], start=7, ids=["x"])) == []
    assert store.outcomes("counting") == {"scored": 1, "duplicate": 1}


def test_the_memory_of_ids_forgets_only_after_its_time(store_url: str, store: Store) -> None:
    """Within the dedupe time an id is known, after twice that time it is not."""
    guard = guard_of(Store(store_url, "t", dedupe_hours=1))
    through(guard, items(["a"], ids=["x"]), NOW)
    through(guard, items(["a"], start=1, ids=["x"]), NOW + 3500)
    through(guard, items(["b"], start=2, ids=["y"]), NOW + 3700)
    through(guard, items(["a"], start=3, ids=["x"]), NOW + 3800)
    through(guard, items(["c"], start=4, ids=["z"]), NOW + 7400)
    through(guard, items(["a"], start=5, ids=["x"]), NOW + 7500)
    assert store.outcomes("counting") == {"scored": 4, "duplicate": 2}


def test_a_topic_made_again_starts_from_nothing(store: Store) -> None:
    """Same ids and offsets in another life of the topic are new."""
    guard = guard_of(store)
    through(guard, items(["a", "b"], life="first"))
    out = through(guard, items(["a", "b"], life="second"))
    assert len(out) == 2
    assert store.outcomes("counting") == {"scored": 4}


def test_only_the_poison_record_is_lost_to_a_failing_batch(store: Store) -> None:
    """A batch that fails is split until the culprit is alone; its neighbours are scored."""
    pipeline = Counting()
    found = items([f"t{i}" for i in range(31)] + ["poison"] + [f"u{i}" for i in range(31)])
    out = through(guard_of(store, pipeline), found)
    assert [item.dead is not None for item in found].index(True) == 31
    assert store.outcomes("counting") == {"scored": 62, "dead_letter": 1}
    assert sum(made.topic == "t.news.dlq" for made in out) == 1
    assert pipeline.calls < 20


def test_a_dead_letter_says_where_it_came_from_and_why(store: Store) -> None:
    """Headers of the contract, the original bytes masked first, the key kept."""
    found = [Item(TOPIC, "a", 2, 9, b"key", b'{"id": "4111"')]
    [letter] = through(guard_of(store), found)
    headers = {name: value.decode() for name, value in letter.headers}
    assert letter.topic == "t.news.dlq"
    assert letter.key == b"key"
    assert letter.value == b'{"id": "****"'
    assert headers.pop("dlq.at").endswith("Z")
    assert headers == {
        "dlq.topic": TOPIC,
        "dlq.partition": "2",
        "dlq.offset": "9",
        "dlq.stage": "decode",
        "dlq.error": "Input data was truncated",
        "dlq.attempts": "1",
    }


def test_a_model_failure_is_tried_three_times(store: Store) -> None:
    """The dead letter of a model failure tells its stage, attempts and a one-line error."""
    [letter] = through(guard_of(store), items(["poison"]))
    headers = {name: value.decode() for name, value in letter.headers}
    assert (headers["dlq.stage"], headers["dlq.attempts"]) == ("model", "3")
    assert headers["dlq.error"] == "ValueError: the model choked on it"


def test_a_huge_record_keeps_its_first_bytes(store: Store) -> None:
    """A record above the limit is a dead letter that keeps 256 KB."""
    [letter] = through(guard_of(store), [Item(TOPIC, "a", 0, 0, None, b"x" * 1_000_000)])
    assert len(letter.value) == 256 * 1024


def test_an_absent_store_is_nobodys_fault(store: Store) -> None:
    """Unavailable leaves the guard as it is: no dead letter, no count."""
    pipeline = Counting()
    pipeline.unavailable = True
    with pytest.raises(Unavailable):
        guard_of(store, pipeline).prepare(items(["a"]), NOW)
    gone = Guard(Counting(), Store("redis://127.0.0.1:1/0", "t"), {TOPIC: News})
    found = items(["a"])
    gone.prepare(found, NOW)
    with pytest.raises(Unavailable):
        gone.commit(found, NOW)


def test_most_failures_stop_the_worker_before_their_effects(store: Store) -> None:
    """When most of the last thousand records fail in the model the worker stops; malformed ones never do it."""
    guard = guard_of(store)
    through(guard, items(["{"] * 2000))

    def feed() -> None:
        for start in range(2000, 4000, 100):
            through(guard, items(["poison"] * 100, start=start))

    with pytest.raises(TooManyFailures):
        feed()
    assert store.outcomes("counting")["dead_letter"] == 2000 + 500


def test_a_hole_in_the_effects_is_refused(store: Store) -> None:
    """Records after some that are not done in this store are not taken: the mark would jump over them."""
    guard = guard_of(store)
    through(guard, items(["a", "b"]))
    late = items(["d"], start=3)
    late[0].previous = 2
    with pytest.raises(LostPlace):
        through(guard, late)
    assert store.outcomes("counting") == {"scored": 2}


def test_a_store_that_lost_everything_is_noticed(store: Store) -> None:
    """An emptied store makes the owner read again from the beginning."""
    guard = guard_of(store)
    found = items([f"t{i}" for i in range(6)])
    through(guard, found[:3])
    store.client.flushdb()
    with pytest.raises(LostPlace):
        through(guard, found[3:])


def test_a_record_that_the_store_refuses_is_a_dead_letter(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the script itself fails on a record, that record alone ends as a dead letter of the stage `store`."""
    guard = guard_of(store)
    pipeline = guard.pipeline
    monkeypatch.setattr(
        pipeline, "prepare", lambda batch, now: [Prepared({"bad": "bad" in r.title}) for r in batch]
    )
    found = items(["a", "b", "bad", "c", "d"])
    through(guard, found)
    assert [item.status for item in found] == ["again", "again", "dead", "new", "new"]
    assert found[2].dead is not None
    assert found[2].dead.stage == "store"
    assert store.outcomes("counting") == {"scored": 4, "dead_letter": 1}


def test_a_full_store_is_waited_for(store_url: str, store: Store) -> None:
    """A store at its memory limit answers Unavailable, not a dead letter."""
    client = redis.Redis.from_url(store_url)
    before: Any = client.config_get("maxmemory")
    client.config_set("maxmemory", "1")
    try:
        guard = guard_of(store)
        found = items(["a"])
        guard.prepare(found, NOW)
        with pytest.raises(Unavailable):
            guard.commit(found, NOW)
    finally:
        client.config_set("maxmemory", before["maxmemory"])
    through(guard, found)
    assert store.outcomes("counting") == {"scored": 1}


class Late(Counting):
    """Counts first, and judges afterwards: what says `late` makes it fail then."""

    def __init__(self) -> None:
        super().__init__()
        self.absorbed: list[str] = []
        self.kept: list[str] = []
        self.away = False

    def claim(self, items: Sequence[Item], now: float) -> None:
        """It knows nothing of the store."""

    def absorb(self, items: Sequence[Item], now: float) -> None:
        self.absorbed += [item.record.id for item in items]

    def judge(self, items: Sequence[Item], now: float) -> list[str]:
        if self.away:
            raise Unavailable("away")
        if any("late" in item.record.title for item in items):
            raise ValueError("it choked late")
        return [f"verdict on {item.record.id}" for item in items]

    def keep(self, store: Store, items: Sequence[Item], now: float) -> None:
        self.kept += [item.record.id for item in items]

    def derive(self, record: News, prepared: Prepared, decision: Any, now: float) -> Iterable[Out]:
        yield Out("t.out", record.id.encode(), str(decision).encode())


def judged(guard: Guard[Any], found: list[Item]) -> list[Out]:
    guard.prepare(found, NOW)
    guard.commit(found, NOW)
    guard.judge(found, NOW)
    out = guard.outputs(found, NOW)
    guard.keep(found, NOW)
    return out


def test_what_fails_after_its_effects_is_alone_a_dead_letter(store: Store) -> None:
    """After the effects a failing batch is halved too; the outcomes add up and stay so on redelivery."""
    pipeline = Late()
    guard = guard_of(store, pipeline)
    titles = ["a", "late", "{", "skip", "b", "c", "poison", "d"]
    first = judged(guard, items(titles))
    assert [out.value for out in first if out.topic == "t.out"] == [
        f"verdict on id-{index}".encode() for index in (0, 4, 5, 7)
    ]
    assert store.outcomes("counting") == {"scored": 4, "filtered": 1, "dead_letter": 3}
    assert pipeline.absorbed == ["id-0", "id-1", "id-3", "id-4", "id-5", "id-7"]
    assert pipeline.kept == ["id-0", "id-3", "id-4", "id-5", "id-7"]
    again = judged(guard_of(store, Late()), items(titles))
    assert [(out.topic, out.value, dict(out.headers).get("dlq.stage")) for out in again] == [
        (out.topic, out.value, dict(out.headers).get("dlq.stage")) for out in first
    ]
    assert store.outcomes("counting") == {"scored": 4, "filtered": 1, "dead_letter": 3}


def test_a_store_that_is_away_while_it_is_judged_is_waited_for(store: Store) -> None:
    """Nothing becomes a dead letter for what is no record's fault; the same items are judged later."""
    pipeline = Late()
    guard = guard_of(store, pipeline)
    found = items(["a", "b"])
    guard.prepare(found, NOW)
    guard.commit(found, NOW)
    pipeline.away = True
    with pytest.raises(Unavailable):
        guard.judge(found, NOW)
    pipeline.away = False
    guard.judge(found, NOW)
    assert [item.decision for item in found] == ["verdict on id-0", "verdict on id-1"]
    assert store.outcomes("counting") == {"scored": 2}


def test_most_failures_after_the_effects_stop_the_worker(store: Store) -> None:
    """A model that fails on most records stops the worker after the effects too; its last batch is not given up."""
    guard = guard_of(store, Late())
    for start in range(0, 500, 100):
        judged(guard, items(["late"] * 100, start=start))
    with pytest.raises(TooManyFailures, match="501 of the last 501"):
        judged(guard, items(["late"] * 100, start=500))
    assert store.outcomes("counting") == {"scored": 100, "dead_letter": 500}  # those may be judged yet


def test_only_a_pipeline_that_judges_is_asked_to(store: Store) -> None:
    """For the others judging and keeping do nothing."""
    guard = guard_of(store)
    found = items(["a"])
    assert not guard.judges
    assert [out.topic for out in judged(guard, found)] == ["t.out"]
