"""The rules beside the model: what is shipped, what a hit asks for, what is said about a storm."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from streams import records
from streams.payments.features import FEATURES
from streams.payments.rules import NOTHING, PaymentRules
from streams.records import Signal, Transaction
from streams.rulebook import RulebookError

AT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
NOW = AT.timestamp()


def payment(number: int = 0, **fields: object) -> Transaction:
    found: dict[str, object] = {"account": "A1", "terminal": "T1", "amount": 20.0, "country": "GB", **fields}
    return Transaction(id=f"p{number}", ts=AT, **found)  # type: ignore[arg-type]


def features(**values: float) -> np.ndarray:
    row = np.zeros((1, len(FEATURES)))
    for name, value in values.items():
        row[0, FEATURES.index(name)] = value
    return row


def judge(rules: PaymentRules, record: Transaction, **values: float):  # type: ignore[no-untyped-def]
    return rules.judge([record], features(**values), np.array([0.01]), NOW)[0]


def test_the_shipped_rules_leave_an_ordinary_payment_alone() -> None:
    """A payment as an account usually makes it is hit by nothing."""
    assert (
        judge(PaymentRules(), payment(), amount=20, account_count_90d=50, amount_to_mean_90d=1.1) == NOTHING
    )


@pytest.mark.parametrize(
    ("record", "values", "name", "action"),
    [
        (payment(country="KP"), {}, "blocked_country", "block"),
        (
            payment(channel="online"),
            {"amount": 1.5, "terminal_count_1h": 30, "terminal_mean_1h": 2, "new_terminal": 1},
            "card_testing",
            "review",
        ),
        (payment(), {"account_count_1h": 14, "account_count_7d": 20}, "velocity_hour", "review"),
        (
            payment(),
            {"new_country": 1, "night": 1, "amount": 400, "account_count_90d": 30},
            "abroad_at_night",
            "review",
        ),
        (
            payment(),
            {"amount": 2400, "account_count_90d": 30, "amount_to_mean_90d": 40},
            "far_above_habit",
            "review",
        ),
    ],
)
def test_each_shipped_rule_hits_what_it_is_for(
    record: Transaction, values: dict[str, float], name: str, action: str
) -> None:
    """A hit names its rule and what it asks for."""
    assert judge(PaymentRules(), record, **values) == ((name,), action)


def test_allow_overrules_and_all_hits_are_named(tmp_path: Path) -> None:
    """An account that is let through is, whatever else hits; all that hit are named."""
    path = tmp_path / "rules.yaml"
    path.write_text(
        "lists: {friends: [A1]}\nrules:\n"
        "  - {name: dear, when: amount > 10, then: block}\n"
        "  - {name: friend, when: account in friends, then: allow}\n"
        "  - {name: look, when: score > 0.001, then: review}\n",
        encoding="utf-8",
    )
    rules = PaymentRules(path)
    assert judge(rules, payment(), amount=20) == (("dear", "friend", "look"), "allow")
    assert judge(rules, payment(account="A2"), amount=20) == (("dear", "look"), "block")


def test_a_storm_suspends_a_rule_and_is_told(tmp_path: Path) -> None:
    """A rule that hits everybody stops deciding, is still named, and is said to be suspended until it no more is."""
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n  - {name: wild, when: paid > 10, then: block}\n", encoding="utf-8")
    rules = PaymentRules(path)
    zeros, scores = np.zeros((100, len(FEATURES))), np.zeros(100)
    dear, cheap = [payment(n) for n in range(100)], [payment(n, amount=1.0) for n in range(100)]
    told: list[Signal] = []
    last = NOTHING
    for second in range(30):
        last = rules.judge(dear, zeros, scores, NOW + second)[0]
        told += rules.signals(dear[-1])
    assert last == (("wild (suspended)",), "")
    assert [(signal.entity, signal.severity) for signal in told] == [("rule:wild", "critical")]
    assert told[0].value > 0.9
    assert set(told[0].evidence) <= {record.id for record in dear}
    assert records.decode(Signal, records.encode(told[0]), NOW) == told[0]
    for second in range(30, 130):
        last = rules.judge(cheap, zeros, scores, NOW + second)[0]
        told += rules.signals(cheap[-1])
    assert rules.suspended == frozenset()
    assert [signal.severity for signal in told][-1] == "info"
    assert rules.judge(dear[:1], zeros[:1], scores[:1], NOW + 131)[0] == (("wild",), "block")


def test_a_storm_of_payments_with_long_ids_is_told_in_short(tmp_path: Path) -> None:
    """Twenty ids of a quarter of a megabyte would make a signal that no broker takes."""
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n  - {name: wild, when: paid > 10, then: block}\n", encoding="utf-8")
    rules, told = PaymentRules(path), list[Signal]()
    long = [replace(payment(n), id=f"{n}{'i' * 200_000}") for n in range(100)]
    for second in range(30):
        rules.judge(long, np.zeros((100, len(FEATURES))), np.zeros(100), NOW + second)
        told += rules.signals(long[-1])
    assert [len(signal.evidence) for signal in told] == [20]
    assert len(records.encode(told[0])) < 10_000


def test_a_wrong_rulebook_is_one_line(tmp_path: Path) -> None:
    """A rule with an unknown feature is named with its line."""
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n  - {name: a, when: account_count_2h > 3, then: block}\n", encoding="utf-8")
    with pytest.raises(RulebookError, match=r"line 2: rule 'a': 'account_count_2h' is neither a column"):
        PaymentRules(path)
