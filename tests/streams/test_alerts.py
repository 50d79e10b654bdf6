"""Alerts on a real store: from signals to transitions in the outbox, by a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from streams import alerts
from streams.alerts import Alerts, alerts_list
from streams.guard import Guard, Item
from streams.records import Alert, Signal
from streams.state.store import Store
from tests.streams.newsroom import PARTITIONS, Newsroom

NOW = 1_795_000_020.0  # a full minute
MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture
def room(store_url: str, unique: str) -> Newsroom:
    """A newsroom on a store without history."""
    return Newsroom(store_url, unique)


def hour(room: Newsroom, symbol: str = "ACME", until: float = NOW) -> list[Item]:
    """A negative headline each five minutes for the hour before."""
    return [room.headline(until - 300 * index, symbol, now=until) for index in range(12, 0, -1)]


def burst(room: Newsroom, at: float = NOW, symbol: str = "ACME", count: int = 20) -> list[Item]:
    """Negative headlines within a minute."""
    return [room.headline(at + 2 * index, symbol) for index in range(count)]


def wait(room: Newsroom, worker: Guard[Signal], since: float, seconds: float) -> None:
    """Nothing but the timer, every second."""
    for second in range(int(seconds)):
        room.tick(worker, since + second)


def states(room: Newsroom) -> list[str]:
    """The states that were published."""
    return [str(record["state"]) for record in room.published()]


def test_ten_stimuli_fire_and_resolve_once_each(room: Newsroom) -> None:
    """Bursts about ten entities after a back-dated hour fire ten alerts, which resolve by the timer; none beyond."""
    worker = room.worker()
    symbols = [f"S{index}" for index in range(10)]
    for symbol in symbols:
        room.judge(worker, hour(room, symbol), NOW)
    wait(room, worker, NOW, 5)
    assert room.published() == []
    items = [room.headline(NOW + 2 * index, symbol) for index in range(20) for symbol in symbols]
    for start in range(0, len(items), 10):
        room.judge(worker, items[start : start + 10], NOW + 2 * (start // 10))
        room.tick(worker, NOW + 2 * (start // 10))
    assert Counter(states(room)) == {"firing": 10}
    wait(room, worker, NOW + 40, 15 * MINUTE)
    assert Counter(states(room)) == {"firing": 10, "resolved": 10}
    assert {str(record["entity"]) for record in room.published()} == {
        f"symbol:{symbol}" for symbol in symbols
    }
    assert room.store.client.hlen(room.store.keys.active()) == 0


def test_the_background_raises_nothing(room: Newsroom) -> None:
    """Headlines one each five minutes, the newest included, raise no alert."""
    worker = room.worker()
    for item in hour(room):
        room.judge(worker, [item], NOW)
    assert room.published() == []


def test_transitions_are_alert_records_in_order_of_version(room: Newsroom) -> None:
    """The outbox holds one record of the contract a transition, versions 1 and 2 under one alert, by event time."""
    worker = room.worker()
    room.judge(worker, hour(room) + burst(room), NOW + 40)
    wait(room, worker, NOW + 40, 10 * MINUTE)
    fired, resolved = (msgspec.convert(record, Alert) for record in room.published())
    assert [fired.id, resolved.id] == [f"{fired.alert}:1", f"{fired.alert}:2"]
    assert (fired.state, fired.version, fired.value) == ("firing", 1, 20)
    assert (resolved.state, resolved.version, resolved.value) == ("resolved", 2, 0)
    assert [fired.ts.timestamp(), resolved.ts.timestamp()] == [NOW + 38, NOW + 6 * MINUTE]
    assert fired.evidence == [f"n{index}" for index in range(13, 33)]
    assert fired.fingerprint == resolved.fingerprint
    assert 0.5 < fired.baseline < 2


def test_an_alert_fires_before_the_burst_is_over(room: Newsroom) -> None:
    """Judged headline by headline, the alert fires on the open minute; what comes later is told by its detail."""
    worker = room.worker()
    room.judge(worker, hour(room), NOW)
    for index in range(20):
        room.judge(worker, [room.headline(NOW + 2 * index)], NOW + 2 * index)
    (fired,) = room.published()
    assert 5 <= msgspec.convert(fired, Alert).value < 20
    raw = room.store.client.hget(room.store.keys.alert(str(fired["alert"])), "detail")
    detail = msgspec.json.decode(raw or b"")
    assert detail["value"] == len(detail["headlines"]) == 20
    assert (detail["outlets"], detail["severity"], detail["window_minutes"]) == (3, "critical", 5)
    assert detail["title"].startswith("ACME Inc. (ACME): 20 negative stories in 5 min, usual ")


def test_redelivery_changes_nothing(room: Newsroom) -> None:
    """Signals that come again, to another worker, lead to no second transition."""
    items = hour(room) + burst(room)
    room.judge(room.worker(), items, NOW + 40)
    before = room.published()
    worker = room.worker()
    room.judge(worker, items, NOW + 41)
    assert {item.status for item in items} == {"again"}
    assert room.published() == before
    wait(room, worker, NOW + 41, 10 * MINUTE)
    room.judge(worker, items, NOW + 11 * MINUTE)
    assert states(room) == ["firing", "resolved"]


def test_a_crash_before_the_judging_loses_no_alert(room: Newsroom) -> None:
    """Marks written, then death: the redelivered signals are judged all the same."""

    class Dying(Alerts):
        def settle(self, store: Store, done: Sequence[Item], now: float) -> None:
            raise KeyboardInterrupt

    items = hour(room) + burst(room)
    dying = Guard(Dying(room.settings, room.store), room.store, {room.topic: Signal})
    with pytest.raises(KeyboardInterrupt):
        room.judge(dying, items, NOW + 40)
    room.judge(room.worker(), items, NOW + 41)
    assert states(room) == ["firing"]


class Racing(Store):
    """A store that lets another worker act between this one's look and its first write."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self.before: Any = None

    def run(self, names: tuple[str, ...], keys: Sequence[str], argument: Any) -> Any:
        before, self.before = self.before, None
        if before is not None:
            before()
        return super().run(names, keys, argument)


def test_two_workers_that_race_raise_one_alert(room: Newsroom, store_url: str) -> None:
    """Whoever loses the compare-and-set looks again and finds the alert: one firing, one resolved, in order."""
    slow_store = Racing(store_url, room.settings.prefix)
    slow, fast = Alerts(room.settings, slow_store), room.worker()
    items = hour(room) + burst(room)
    room.judge(Guard(slow, room.store, {room.topic: Signal}), [], NOW)
    fast.prepare(items, NOW + 40)
    for item in items:
        item.status = "new"
    slow_store.before = lambda: fast.pipeline.settle(room.store, items, NOW + 40)
    slow.settle(slow_store, items, NOW + 40)
    assert slow_store.before is None
    assert states(room) == ["firing"]
    late = NOW + 10 * MINUTE
    slow_store.before = lambda: room.tick(fast, late)
    slow.tick(slow_store, {room.topic: range(PARTITIONS)}, late)
    assert states(room) == ["firing", "resolved"]


def test_a_worker_that_looked_long_ago_raises_no_second_alert(room: Newsroom, store_url: str) -> None:
    """A worker that was stopped between look and write, while the alert came and went, writes nothing."""
    slow_store = Racing(store_url, room.settings.prefix)
    slow, fast = Alerts(room.settings, slow_store), room.worker()
    items = hour(room) + burst(room)

    def come_and_go() -> None:
        room.judge(fast, items, NOW + 40)
        wait(room, fast, NOW + 40, 10 * MINUTE)

    fast.prepare(items, NOW + 40)
    for item in items:
        item.status = "new"
    slow_store.before = come_and_go
    slow.settle(slow_store, items, NOW + 40)
    assert states(room) == ["firing", "resolved"]


def test_only_the_owner_of_a_partition_runs_its_timers(room: Newsroom) -> None:
    """A worker without the partition of an alert's signals leaves it alone; its next owner resolves it."""
    worker, other = room.worker(), room.worker()
    items = hour(room) + burst(room)
    room.judge(worker, items, NOW + 40)
    late, partition = NOW + 10 * MINUTE, items[-1].partition
    others = [each for each in range(PARTITIONS) if each != partition]
    other.pipeline.tick(room.store, {room.topic: others}, late)
    assert states(room) == ["firing"]
    other.pipeline.tick(room.store, {room.topic: [partition]}, late)
    assert states(room) == ["firing", "resolved"]


def test_a_watermark_that_stands_still_clears_nothing(room: Newsroom) -> None:
    """While headlines of an earlier minute still arrive, the buckets after it are open and the alert stays."""
    worker = room.worker()
    room.judge(worker, hour(room) + burst(room), NOW + 40)
    late = NOW + 20 * MINUTE
    room.headline(NOW + 3 * MINUTE, "OTHER", now=late)
    room.tick(worker, late)
    assert states(room) == ["firing"]
    room.tick(worker, late + 2 * MINUTE)
    assert states(room) == ["firing", "resolved"]


def test_a_second_burst_is_an_incident_of_its_own(room: Newsroom) -> None:
    """After the resolution new stories raise a new alert, with its own id and versions under one fingerprint."""
    worker = room.worker()
    room.judge(worker, hour(room) + burst(room), NOW + 40)
    wait(room, worker, NOW + 40, 10 * MINUTE)
    again = NOW + 20 * MINUTE
    room.judge(worker, burst(room, again), again + 40)
    wait(room, worker, again + 40, 10 * MINUTE)
    records = room.published()
    assert [(record["state"], record["version"]) for record in records] == [
        ("firing", 1),
        ("resolved", 2),
    ] * 2
    assert len({record["alert"] for record in records}) == 2
    assert len({record["fingerprint"] for record in records}) == 1


def test_back_dated_bursts_in_one_batch_are_incidents_by_event_time(room: Newsroom) -> None:
    """Two bursts of the last hour that are read at once give two alerts, each fired and resolved at its own time."""
    first, second = NOW - 50 * MINUTE, NOW - 20 * MINUTE
    items = burst(room, first) + burst(room, second)
    worker = room.worker()
    room.headline(NOW, "OTHER")
    room.judge(worker, items, NOW)
    room.tick(worker, NOW)
    records = [msgspec.convert(record, Alert) for record in room.published()]
    assert [record.state for record in records] == ["firing", "resolved"] * 2
    times = [record.ts.timestamp() for record in records]
    assert times == [first + 38, first + 6 * MINUTE, second + 38, second + 6 * MINUTE]


def test_what_another_sets_is_respected(room: Newsroom) -> None:
    """An alert that somebody acknowledged stays acknowledged by new headlines, and resolves as the next version."""
    worker = room.worker()
    room.judge(worker, hour(room) + burst(room), NOW + 40)
    (fired,) = room.published()
    acknowledged = fired | {"state": "acknowledged", "version": 2, "id": f"{fired['alert']}:2"}
    key = room.store.keys.alert(str(fired["alert"]))
    room.store.client.hset(
        key, mapping={"record": msgspec.json.encode(acknowledged), "version": 2, "state": "acknowledged"}
    )
    room.judge(worker, burst(room, NOW + 41, count=3), NOW + 47)
    assert room.store.client.hget(key, "state") == b"acknowledged"
    wait(room, worker, NOW + 60, 10 * MINUTE)
    assert [record["version"] for record in room.published()] == [1, 3]
    assert states(room) == ["firing", "resolved"]


@pytest.mark.parametrize(
    ("at", "value", "kind", "entity"),
    [
        (NOW - HOUR - 1, -0.9, "sentiment", "symbol:ACME"),
        (NOW, 0.9, "sentiment", "symbol:ACME"),
        (NOW, -0.9, "complaints", "intent:card_lost"),
        (NOW, -0.9, "sentiment", "market"),
    ],
    ids=["an hour old", "positive", "another kind", "the market"],
)
def test_signals_that_cannot_page_are_filtered(
    room: Newsroom, at: float, value: float, kind: str, entity: str
) -> None:
    """Old and positive signals, of kinds that nobody watches, or about the market raise nothing: filtered."""
    burst(room, at)
    room.offsets = dict.fromkeys(range(PARTITIONS), -1)  # their own signals are not sent
    room.judge(room.worker(), [room.signal(at, entity, value, "n1", kind)], NOW)
    assert room.published() == []
    assert room.store.outcomes("alerts") == {"filtered": 1}


def test_copies_of_a_story_count_once(room: Newsroom) -> None:
    """Twenty headlines of four stories raise no alert."""
    items = burst(room, count=4)
    items += [room.headline(NOW + index, copy_of="n1") for index in range(16)]
    room.judge(room.worker(), items, NOW + 40)
    assert room.published() == []


def test_a_wiped_store_crashes_nobody(room: Newsroom) -> None:
    """When the store loses everything while an alert fires, timers and judging go on with what comes."""
    worker = room.worker()
    room.judge(worker, hour(room) + burst(room), NOW + 40)
    room.wipe()
    room.tick(worker, NOW + 41)
    assert room.published() == []
    room.offsets = dict.fromkeys(range(PARTITIONS), -1)
    room.judge(worker, burst(room, NOW + 5 * MINUTE), NOW + 6 * MINUTE)
    wait(room, worker, NOW + 6 * MINUTE, 10 * MINUTE)
    assert states(room) == ["firing", "resolved"]


def test_old_alerts_make_room(room: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest resolved alerts are kept, and those that are active."""
    monkeypatch.setattr(alerts, "KEPT", 2)
    worker = room.worker()
    for index in range(4):
        at = NOW + index * 20 * MINUTE
        room.judge(worker, burst(room, at, f"S{index}"), at + 40)
        wait(room, worker, at + 40, 10 * MINUTE)
    last = NOW + 90 * MINUTE
    room.judge(worker, burst(room, last, "S9"), last + 40)
    listed = alerts_list(room.store)
    assert [(record["entity"], record["state"]) for record in listed] == [
        ("symbol:S9", "firing"),
        ("symbol:S3", "resolved"),
        ("symbol:S2", "resolved"),
    ]
    assert alerts_list(room.store, "firing") == listed[:1]
    kept = room.store.client.keys(room.store.keys.alert("*-*"))
    assert len(kept) == 3


def test_no_alerts_is_an_empty_list(room: Newsroom) -> None:
    """A store without alerts gives an empty list."""
    assert alerts_list(room.store) == []
