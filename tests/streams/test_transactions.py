"""The transactions pipeline on a real store: features as offline whatever happens to workers, labels, poison."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streams.guard import Guard, Item
from streams.launch.why import UnknownEntity, lines, why
from streams.payments.features import FEATURES
from streams.payments.rules import NOTHING
from streams.records import Signal, Transaction, decode, encode
from streams.transactions import Verdict, _signals
from tests.streams.tills import DAY, Tills, offline, row_of, sequence_of, stream

NOW = time.time()
START = int(NOW * 1000) - 230 * DAY


@pytest.fixture
def tills(store_url: str, unique: str) -> Iterator[Tills]:
    made = Tills(store_url, unique, dedupe_hours=168.0)
    yield made
    made.store.close()


def items_of(tills: Tills, records: list[dict[str, Any]]) -> list[Item]:
    """The records at their places."""
    found = []
    for one in records:
        if "ref" in one:
            found.append(
                tills.label(
                    one["id"],
                    one["at"],
                    one["ref"],
                    account=one["of"]["account"],
                    terminal=one["of"]["terminal"],
                )
            )
        else:
            found.append(
                tills.payment(
                    one["id"],
                    one["at"],
                    one["account"],
                    one["terminal"],
                    one["cents"],
                    country=one["country"],
                )
            )
    return found


def differences(records: list[dict[str, Any]], items: list[Item]) -> list[tuple[str, str, float, float]]:
    """Where features or sequences of the items differ from the offline ones."""
    expected = offline(records)
    wrong = []
    for item in items:
        if not hasattr(item.record, "amount") or item.status == "duplicate":
            continue
        found, (wanted, steps) = row_of(item), expected[item.record.id]
        wrong += [
            (item.record.id, FEATURES[column], float(found[column]), float(wanted[column]))
            for column in np.flatnonzero(found != wanted)
        ]
        if sequence_of(item) != steps:
            wrong.append((item.record.id, "sequence", 0.0, 0.0))
    return wrong


@pytest.mark.parametrize(
    ("span", "furthest"), [(20 * DAY, DAY), (190 * DAY, 20 * DAY)], ids=["three weeks", "half a year"]
)
def test_features_online_equal_those_offline(tills: Tills, span: int, furthest: int) -> None:
    """Late, repeated and labelled payments in batches of any size: each row is the offline one, bit for bit."""
    records = stream(5, 1_500, START, span, accounts=12, terminals=9, furthest=furthest, labels=0.1)
    items = items_of(tills, records)
    worker, generator, place = tills.worker(), random.Random(2), 0
    while place < len(items):
        size = generator.randrange(1, 120)
        tills.through(worker, items[place : place + size], NOW)
        place += size
    assert differences(records, items)[:5] == []
    assert sum(item.status == "duplicate" for item in items) == sum(bool(one.get("twice")) for one in records)


@pytest.mark.parametrize("held", [1_000_000, 1_000], ids=["all in memory", "little in memory"])
def test_workers_that_share_terminals_and_die_see_the_same(tills: Tills, held: int) -> None:
    """Two workers by turns, one of them replaced again and again, its last batch delivered again: the same rows."""
    tills.settings = type(tills.settings)(**{**vars(tills.settings), "payments_held": held})
    records = stream(9, 1_500, START, 180 * DAY, accounts=40, terminals=6, furthest=3 * DAY, labels=0.1)
    items = items_of(tills, records)
    one, other = tills.worker(), tills.worker()
    generator = random.Random(4)
    batches, place = [], 0
    while place < len(items):
        size = generator.randrange(1, 80)
        batches.append(items[place : place + size])
        place += size
    done: list[Item] = []
    for number, batch in enumerate(batches):
        for worker, part in (
            (one, [item for item in batch if item.partition < 2]),
            (other, [item for item in batch if item.partition >= 2]),
        ):
            tills.through(worker, part, NOW)
            done += part
        if number % 5 == 4:  # killed after its effects; another takes over, and everything comes again
            other = tills.worker()
            again = tills.copies([item for earlier in batches[number - 2 : number + 1] for item in earlier])
            tills.through(other, again, NOW)
            assert {item.status for item in again} <= {"again", "duplicate"}
            done += again
    # The order of the store is that of the calls, a batch's first half before its second.
    order = {id(item): index for index, item in enumerate(done)}
    ranked = sorted(zip(items, records, strict=True), key=lambda pair: order[id(pair[0])])
    assert differences([record for _, record in ranked], done)[:5] == []


def test_batches_prepared_ahead_see_the_same(tills: Tills) -> None:
    """While a batch has its effects the next is prepared already: what the worker said it knew is old by then."""
    records = stream(6, 900, START, 150 * DAY, accounts=10, terminals=4, furthest=2 * DAY, labels=0.05)
    items = items_of(tills, records)
    worker = tills.worker()
    batches = [items[start : start + 60] for start in range(0, len(items), 60)]
    worker.prepare(batches[0], NOW)
    for batch, following in zip(batches, [*batches[1:], []], strict=True):
        worker.prepare(following, NOW)
        worker.commit(batch, NOW)
        worker.judge(batch, NOW)
        worker.keep(batch, NOW)
    assert differences(records, items)[:5] == []


def test_logs_are_bounded_by_the_retention(tills: Tills) -> None:
    """An account that pays every hour for two years leaves a log of four months, of each payment 36 bytes."""
    begin = int(NOW * 1000) - 730 * DAY
    worker = tills.worker()
    for day in range(0, 730, 10):
        batch = [
            tills.payment(f"{day}-{hour}", begin + day * DAY + hour * 3_600_000, "a", "t", 100)
            for hour in range(240)
        ]
        tills.through(worker, batch, NOW)
    for key in (tills.store.keys.account("a"), tills.store.keys.terminal("t")):
        assert 120 * 24 * 36 <= tills.store.client.strlen(key) <= 160 * 24 * 36
        assert 0 < tills.store.client.pttl(key) <= 151 * DAY


class Choking:
    """A scorer that fails on a batch in which a payment of 666.00 stands."""

    model = engine = "choking"

    def score(self, features: Any, sequences: Any) -> Any:
        if (features[:, 0] == 666).any():
            raise ValueError("it choked")
        return np.full(len(features), 0.01)

    def reasons(self, features: Any, sequences: Any) -> list[Any]:
        return [[] for _ in features]

    def warm(self) -> None:
        pass

    def close(self) -> None:
        pass


def choking(tills: Tills) -> Guard[Any]:
    """A worker whose model fails on some."""
    from streams.transactions import TransactionsPipeline

    return tills.worker(TransactionsPipeline(tills.settings, tills.store, scorer=Choking()))


def test_a_record_that_fails_after_its_effects_is_a_dead_letter(tills: Tills) -> None:
    """Only the culprit is lost, its neighbours are decided; so it stays on redelivery; outcomes add up."""
    amounts = [100, 200, 66_600, 300, 66_600, 400]
    batch = [tills.payment(f"p{i}", START, "a", "t", cents) for i, cents in enumerate(amounts)]
    worker = choking(tills)
    outs = tills.through(worker, batch, NOW)
    dead = [out for out in outs if out.topic.endswith("transactions.dlq")]
    assert [item.status for item in batch] == ["new", "new", "dead", "new", "dead", "new"]
    assert [out.value for out in dead] == [batch[2].raw, batch[4].raw]
    assert [dict(out.headers)["dlq.stage"] for out in dead] == [b"model", b"model"]
    assert all(b"it choked" in dict(out.headers)["dlq.error"] for out in dead)
    assert tills.store.outcomes("transactions") == {"scored": 4, "dead_letter": 2}
    again = tills.copies(batch)
    repeated = tills.through(tills.worker(), again, NOW)
    assert [item.status for item in again] == ["again", "again", "dead", "again", "dead", "again"]
    assert [out.value for out in repeated if out.topic.endswith(".dlq")] == [batch[2].raw, batch[4].raw]
    assert tills.store.outcomes("transactions") == {"scored": 4, "dead_letter": 2}


def test_a_label_waits_for_its_payment(tills: Tills) -> None:
    """A label that comes before its payment counts from the payment on, and among what was decided."""
    worker, at = tills.worker(), int(NOW * 1000) - 20 * DAY
    tills.through(worker, [tills.label("l", at + DAY, "p0")], NOW)
    assert tills.store.outcomes("transactions") == {"scored": 1}
    tills.through(worker, [tills.payment("p0", at, "a", "t", 5_000)], NOW)
    later = tills.payment("p1", at + 10 * DAY, "b", "t", 5_000)
    tills.through(worker, [later], NOW)
    assert row_of(later)[FEATURES.index("terminal_frauds_14d")] == 1
    assert row_of(later)[FEATURES.index("terminal_risk_14d")] == 1
    matured = tills.store.client.hgetall(tills.store.keys.payments(f"matured:{at // DAY}"))
    assert matured == {b"approve:fraud": b"1", b"approve:fraud:cents": b"5000"}


def test_many_labels_that_are_overdue_go_in_one_tick(tills: Tills, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick takes as many short steps as it needs, so that more labels than one step holds do not pile up."""
    monkeypatch.setattr("streams.transactions.OVERDUE_AT_ONCE", 2)
    worker, at = tills.worker(), int(NOW * 1000) - 2 * DAY
    tills.through(worker, [tills.label(f"l{number}", at, f"never{number}") for number in range(7)], NOW)
    worker.pipeline.tick(tills.store, {tills.settings.topic("labels"): range(4)}, NOW + 86_500)
    assert tills.store.outcomes("transactions") == {"scored": 0, "dead_letter": 7}


def test_a_payment_that_is_judged_days_after_its_effects_is_remembered(tills: Tills) -> None:
    """A crash between effects and verdict, and a pause of days: the decision still meets its label."""
    worker, at = tills.worker(), int(NOW * 1000) - DAY
    batch = [tills.payment("p0", at, "a", "t", 5_000)]
    worker.prepare(batch, NOW)
    worker.commit(batch, NOW)
    later = NOW + 4 * DAY / 1000
    again = tills.worker()
    tills.through(again, tills.copies(batch), later)
    tills.through(again, [tills.label("l0", at + 2 * DAY, "p0")], later)
    matured = tills.store.client.hgetall(tills.store.keys.payments(f"matured:{at // DAY}"))
    assert matured == {b"approve:fraud": b"1", b"approve:fraud:cents": b"5000"}


def test_signals_of_a_payment_say_whose_it_is_and_stay_short(tills: Tills) -> None:
    """A signal names account and amount; names of any length make no record that others must refuse."""
    worker, at = tills.worker(), int(NOW * 1000) - DAY
    long = tills.payment("i" * 60_000, at, "a" * 60_000, "t" * 60_000, 5_000)
    usual = [tills.payment(f"u{number}", at + number, "b", "t1", 1_000) for number in range(8)]
    odd = tills.payment("x", at + 9, "b", "t9", 99_000_000)
    outs = tills.through(worker, [long, *usual, odd], NOW)
    found = [decode(Signal, out.value, NOW) for out in outs if out.topic.endswith(".signals")]
    named = [signal for signal in found if signal.entity == "account:b"]
    assert [(signal.by, signal.note) for signal in named] == [("b", "990,000.00 USD at t9: block")]
    record = decode(Transaction, long.raw, NOW)
    verdict = Verdict(0.9, "block", NOTHING, (0.1, 0.5), [], np.zeros(1), NOW, {})
    for signal in _signals(record, verdict):
        assert decode(Signal, encode(signal), NOW) == signal
        assert len(encode(signal)) < 2_000


def test_a_label_counts_from_its_own_time_and_the_last_verdict_stands(tills: Tills) -> None:
    """Before its time a label is unknown; of two verdicts the later one counts, whatever comes first."""
    worker, at = tills.worker(), int(NOW * 1000) - 60 * DAY
    column = FEATURES.index("account_frauds_30d")
    tills.through(worker, [tills.payment("p0", at, "a", "t", 5_000)], NOW)
    tills.through(
        worker, [tills.label("l0", at + 12 * DAY, "p0"), tills.label("l1", at + 15 * DAY, "p0", "legit")], NOW
    )
    tills.through(worker, [tills.label("l2", at + 13 * DAY, "p0", "fraud")], NOW)
    found = [tills.payment(f"q{day}", at + day * DAY, "a", "t", 5_000) for day in (11, 16)]
    tills.through(worker, found, NOW)
    assert [row_of(item)[column] for item in found] == [0, 0]
    tills.through(worker, [tills.label("l3", at + 17 * DAY, "p0", "1")], NOW)
    found = [tills.payment(f"r{day}", at + day * DAY, "a", "t", 5_000) for day in (16, 18)]
    tills.through(worker, found, NOW)
    assert [row_of(item)[column] for item in found] == [0, 1]
    matured: Any = tills.store.client.hgetall(tills.store.keys.payments(f"matured:{at // DAY}"))
    assert matured[b"approve:fraud"] == b"1"
    assert matured[b"approve:legit"] == b"0"


def test_a_label_without_a_payment_is_a_dead_letter_a_day_later(tills: Tills) -> None:
    """With account and terminal it then counts from its own time on, without it is a dead letter with its bytes."""
    worker, at = tills.worker(), int(NOW * 1000) - 30 * DAY
    bare = tills.label("l0", at, "never")
    whole = tills.label("l1", at, "neither", account="a", terminal="t")
    tills.through(worker, [tills.payment("p0", at - DAY, "a", "t", 100), bare, whole], NOW)
    owned = {tills.settings.topic("labels"): range(4)}
    worker.pipeline.tick(tills.store, owned, NOW + 86_000)
    outboxes = [tills.store.keys.outbox("transactions", partition) for partition in range(4)]
    assert [tills.store.client.llen(key) for key in outboxes] == [0, 0, 0, 0]
    assert tills.store.outcomes("transactions") == {"scored": 3}
    worker.pipeline.tick(tills.store, owned, NOW + 86_500)
    entry: Any
    [entry] = [raw for key in outboxes for raw in tills.store.client.lrange(key, 0, -1)]
    from streams.outbox import record_of

    out = record_of(entry)
    assert (out.topic, out.key, out.value) == (tills.settings.topic("labels.dlq"), b"never", bare.raw)
    assert dict(out.headers)["dlq.offset"] == str(bare.offset).encode()
    assert tills.store.outcomes("transactions") == {"scored": 2, "dead_letter": 1}
    later = tills.payment("p1", at + 10 * DAY, "b", "t", 100)
    tills.through(worker, [later], NOW)
    assert row_of(later)[FEATURES.index("terminal_frauds_14d")] == 1


def test_other_labels_are_left_to_others(tills: Tills) -> None:
    """Labels of headlines are filtered, those that say nothing known are dead letters."""
    worker = tills.worker()
    batch = [
        tills.label("l0", START, "n", "negative", subject="news"),
        tills.label("l1", START, "p", "perhaps"),
    ]
    outs = tills.through(worker, batch, NOW)
    assert tills.store.outcomes("transactions") == {"filtered": 1, "dead_letter": 1}
    assert [dict(out.headers)["dlq.stage"] for out in outs] == [b"decode"]


def test_why_tells_the_whole_decision(tills: Tills) -> None:
    """The receipt has the record, the features and, though nobody asked at the time, the reasons that add up."""
    at = int(NOW * 1000) - DAY
    worker = tills.worker()
    batch = [tills.payment(f"p{i}", at + i * 1000, "a", "t", 5_000, country="DE") for i in range(3)]
    tills.through(worker, batch, NOW)
    settings = replace(tills.settings, redis=tills.store.url)
    found = why(settings, "p2")
    assert (found["id"], found["decision"], found["model"]) == ("p2", "approve", "tiny")
    assert found["features"]["account_count_1h"] == 2
    assert found["record"]["country"] == "DE"
    odds = sum(reason["contribution"] for reason in found["reasons"])
    assert found["score"] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)
    assert {row["what"] for row in lines(found)} >= {"decision", "record.account", "feature amount"}
    with pytest.raises(UnknownEntity, match="no receipt of 'p9'"):
        why(settings, "p9")


def test_receipts_are_bounded(tills: Tills) -> None:
    """Of approvals the newest thousand or so are known, and no more."""
    tills.settings = replace(tills.settings, receipts=1_000, redis=tills.store.url)
    worker, at = tills.worker(), int(NOW * 1000) - DAY
    for start in range(0, 3_000, 500):
        batch = [tills.payment(f"p{start + i}", at, f"a{i}", "t", 100) for i in range(500)]
        judged = tills.through(worker, batch, NOW)
        assert judged
    kept = sum(
        int(tills.store.client.hlen(key))
        for key in tills.store.client.scan_iter(f"{tills.store.keys.prefix}:payments:receipts:*")
    )
    assert 1_000 <= kept <= 1_000 * 10 // 7 + 500
    assert why(tills.settings, "p2999")["id"] == "p2999"
    with pytest.raises(UnknownEntity):
        why(tills.settings, "p0")
