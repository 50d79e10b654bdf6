"""Alerts about payments on a real store: bursts of fraud, rules that storm; by a clock of the test's own."""

from __future__ import annotations

import time

import msgspec
import pytest

from streams import alerts
from streams.guard import Guard, Item
from streams.records import Alert, Severity, Signal, as_time, encode
from tests.streams.newsroom import Newsroom

NOW = time.time() // 60 * 60.0  # a full minute; the store expires by the real clock
MINUTE, HOUR = 60.0, 3600.0


class Till(Newsroom):
    """A newsroom that payments signal to as well."""

    def say(
        self,
        at: float,
        entity: str,
        ref: str,
        kind: str = "fraud",
        severity: Severity = "warning",
        value: float = 0.9,
    ) -> Item:
        """A signal of the transactions pipeline; the watermark of payments follows."""
        item = self.signal(at, entity, value, ref, kind)
        record = Signal(
            id=f"{ref}:{kind}:{entity}",
            ts=as_time(at),
            kind=kind,  # type: ignore[arg-type]
            entity=entity,
            value=value,
            baseline=0.02,
            severity=severity,
            evidence=[ref],
            by=f"A{ref}",
            note="12.00 USD",
        )
        item.raw = encode(record)
        self.pay(at)
        return item

    def pay(self, at: float) -> None:
        """A payment was seen at this time."""
        watermark = self.store.keys.watermark(self.settings.topic("transactions"))
        self.store.client.hset(watermark, mapping={"0": round(at * 1000), "0:at": round(at * 1000)})

    def wait(self, worker: Guard[Signal], since: float, seconds: float) -> None:
        """Nothing but the timer, and payments that nobody suspects."""
        for second in range(int(seconds)):
            self.pay(since + second)
            self.tick(worker, since + second)


@pytest.fixture
def till(store_url: str, unique: str) -> Till:
    """On a store without history."""
    return Till(store_url, unique)


def calm(till: Till, worker: Guard[Signal], entity: str = "terminal:T7") -> None:
    """One suspicious payment each ten minutes for three hours."""
    at = NOW - 3 * HOUR
    for index in range(18):
        till.judge(worker, [till.say(at + 600 * index, entity, f"c{index}")], NOW)


def test_a_burst_of_fraud_at_a_terminal_fires_and_resolves(till: Till) -> None:
    """Twenty suspicious payments within a minute, after hours of few, are one alert, which ends by itself."""
    worker = till.worker()
    calm(till, worker)
    till.wait(worker, NOW, 5)
    assert till.published() == []
    for index in range(20):
        till.judge(worker, [till.say(NOW + 2 * index, "terminal:T7", f"p{index}")], NOW + 2 * index)
    (record,) = till.published()
    fired = msgspec.convert(record, Alert)
    assert (fired.kind, fired.entity, fired.state) == ("fraud", "terminal:T7", "firing")
    assert fired.evidence[0] == "p0"
    detail = msgspec.json.decode(till.store.client.hget(till.store.keys.alert(fired.alert), "detail") or b"")
    assert detail["title"].startswith("Terminal T7: 20 suspicious payments in 5 min, usual ")
    assert (detail["value"], detail["outlets"], detail["headlines"][0]["source"]) == (20, 20, "Ap0")
    till.wait(worker, NOW + 40, 10 * MINUTE)
    assert [found["state"] for found in till.published()] == ["firing", "resolved"]


def test_signals_that_come_again_count_once_each(till: Till) -> None:
    """Redelivered signals about four payments raise no alert."""
    worker = till.worker()
    items = [till.say(NOW + index, "country:TR", f"p{index}") for index in range(4)]
    for _ in range(5):
        till.judge(till.worker(), items, NOW + 5)
    assert till.published() == []
    till.judge(worker, [till.say(NOW + 6, "country:TR", "p5")], NOW + 6)
    assert [record["entity"] for record in till.published()] == ["country:TR"]


def test_kinds_do_not_mix(till: Till) -> None:
    """News and payments about entities of one name are counted apart."""
    worker = till.worker()
    till.judge(worker, [till.headline(NOW + index) for index in range(4)], NOW + 5)
    till.judge(worker, [till.say(NOW + index, "symbol:ACME", f"p{index}") for index in range(4)], NOW + 5)
    assert till.published() == []


def test_a_storm_is_an_alert_until_the_rule_decides_again(till: Till) -> None:
    """A suspended rule fires at once with its share; three closed minutes after the last word it is over."""
    worker = till.worker()
    for index in range(4):
        at = NOW + 30 * index
        till.judge(worker, [till.say(at, "rule:wild", f"p{index}", "decline_storm", "critical", 0.4)], at)
    (record,) = till.published()
    fired = msgspec.convert(record, Alert)
    assert (fired.kind, fired.severity, fired.value, fired.baseline) == (
        "decline_storm",
        "critical",
        0.4,
        0.02,
    )
    detail = msgspec.json.decode(till.store.client.hget(till.store.keys.alert(fired.alert), "detail") or b"")
    assert detail["title"] == "Rule wild: 40% of the payments hit, usual 2.0%"
    over = till.say(NOW + 100, "rule:wild", "p9", "decline_storm", "info", 0.1)
    till.judge(worker, [over], NOW + 100)
    till.wait(worker, NOW + 100, 2 * MINUTE)
    assert len(till.published()) == 1
    till.wait(worker, NOW + 220, 4 * MINUTE)
    assert [found["state"] for found in till.published()] == ["firing", "resolved"]


def test_entities_beyond_the_bound_leave_nothing(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of made-up terminals cannot fill the store."""
    monkeypatch.setattr(alerts, "ENTITIES", 5)
    worker = till.worker()
    till.judge(
        worker,
        [till.say(NOW + index / 10, f"terminal:X{index}", f"p{index}") for index in range(40)],
        NOW + 5,
    )
    keys = till.store.client.keys(till.store.keys.flagged("fraud", "*"))
    assert len(keys) == 5
    assert len(till.store.client.keys(till.store.keys.tally("fraud", "terminal:*", 0)[:-1] + "*")) == 5
