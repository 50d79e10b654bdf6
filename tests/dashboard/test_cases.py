"""Rows of the review desk and words of features: pure."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from dashboard import cases, words
from dashboard.cases import Filter, Said
from streams.payments.desk import Account, Desk, Matured, Receipt
from streams.payments.features import FEATURES
from streams.records import Reason, Transaction

LIMITS = ((0.1, 0.5), (float("inf"), float("inf")))  # of review and block
AT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def receipt(name: str = "p1", decision: str = "review", **fields: object) -> Receipt:
    record = Transaction(
        id=name,
        ts=AT,
        account="A1",
        terminal="T7",
        amount=1312.5,
        currency="GBP",
        country="GB",
        channel="pos",
    )
    reasons = [
        Reason(feature=feature, value=float(index), contribution=(-1) ** index * (10.0 - index))
        for index, feature in enumerate(FEATURES[4:16])
    ]
    return Receipt(record, 0.91, decision, reasons=reasons, **fields)  # type: ignore[arg-type]


def test_reasons_add_up_to_the_whole() -> None:
    """What is not listed of the reasons is one line, so that the bars add up to the logit."""
    found = receipt()
    detail = cases.case(found, True)["detail"]
    assert len(detail["reasons"]) == cases.REASONS + 1
    total = sum(reason["contribution"] for reason in detail["reasons"])
    assert total == pytest.approx(sum(reason.contribution for reason in found.reasons))
    assert detail["reasons"][-1]["name"] == "4 others"


def test_a_row_says_what_speaks_for_fraud() -> None:
    """Rules come first, else the first reason that adds to the score; the amount has its currency."""
    row = cases.case(receipt(), False)
    assert row["amount"] == "1\u202f312.50 GBP"
    assert row["why"] == "account's payments, 1 h: 0"
    assert "detail" not in row
    assert cases.case(receipt(rules=["velocity_hour"]), False)["why"] == "rule velocity_hour"


def test_limits_that_no_score_reaches_are_put_in_words() -> None:
    """A payment of nothing is reviewed by no score: its threshold is infinite."""
    shown = [cases.case(receipt(thresholds=limits), True)["detail"]["limits"] for limits in LIMITS]
    assert shown == ["review from 0.100, block from 0.500", "no review by score, no block by score"]


def test_filters_look_at_ids_places_and_rules() -> None:
    """Each word has to be in an id, the country, the channel or a rule; the decision may be asked for."""
    found = receipt(rules=["card_testing"])
    assert Filter(text="t7 card").keeps(found)
    assert not Filter(text="t8").keeps(found)
    assert Filter("review").keeps(found)
    assert not Filter("block").keeps(found)


def test_the_opened_case_is_shown_whatever_the_filter() -> None:
    """A link to a case shows it."""
    shown = [receipt("p1"), receipt("p2")]
    assert [row["id"] for row in cases.queue(shown, Filter("block"), "p2")] == ["p2"]


def test_a_verdict_that_failed_is_told() -> None:
    """An error stands with its payment, newest first."""
    found = {"p1": Said("fraud", 1000), "p2": Said("legit", 2000, "the broker is away")}
    assert [(row["id"], row["error"]) for row in cases.said(found)] == [
        ("p2", "the broker is away"),
        ("p1", ""),
    ]


def test_figures_compare() -> None:
    """Precision is of judged reviews and blocks; what was approved and was fraud is lost."""
    matured = Matured(
        {("review", "fraud"): 3, ("block", "fraud"): 1, ("review", "legit"): 4, ("approve", "fraud"): 1},
        {("review", "fraud"): 300.0, ("block", "fraud"): 50.0, ("approve", "fraud"): 20.0},
    )
    found = {row["title"]: row for row in cases.figures(Desk(7, [receipt()], matured), [], [(0.0, 2.5, 0)])}
    assert found["Waiting for review"]["value"] == 7
    assert found["Precision at budget, 7 d"]["value"] == 50.0
    assert "recall 80 %" in str(found["Precision at budget, 7 d"]["note"])
    assert found["Value saved, 7 d"]["value"] == 350.0
    nothing = {row["title"]: row for row in cases.figures(Desk(0, [], Matured({}, {})), [], [])}
    assert nothing["Precision at budget, 7 d"]["value"] is None


def test_an_account_marks_what_needs_a_look() -> None:
    """Fraud, what is far above habit and a first country are marked; the newest payment is listed first."""
    found = Account(
        "A1", [1, 2, 3], [5.0, 500.0, 5.0], ["GB", "GB", "TR"], [1, 1, 2],
        [False, True, False], [False, False, True], {}, {"1 h": (3, 510.0, 500.0)},
    )  # fmt: skip
    row = cases.account(found)
    assert row is not None
    assert [(each["at"], each["mark"], each["first"]) for each in row["rows"]] == [
        (3, "fraud", True),
        (2, "unusual", False),
        (1, "", False),
    ]
    assert cases.account(None) is None


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_has_words(name: str) -> None:
    """No feature is shown by its name in the code, and each value has its unit."""
    assert "_" not in words.feature(name)
    assert words.value(name, 1.0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("new_country", 1.0, "yes"),
        ("amount_to_mean_90d", 4.25, "\u00d7 4.2"),
        ("account_since_last", 7200.0, "2 h"),
        ("terminal_risk_28d", 0.25, "25 %"),
        ("account_sum_7d", 12345.6, "12\u202f345.60"),
        ("terminal_count_1h", 31.0, "31"),
    ],
)
def test_values_have_units(name: str, value: float, expected: str) -> None:
    """Counts are whole, amounts have cents, ratios a cross, spans their largest unit."""
    assert words.value(name, value) == expected


def test_features_of_another_version_are_left_out() -> None:
    """A receipt whose features are not those of this version shows none."""
    assert receipt(features=b"1234").seen == {}
    values = np.arange(len(FEATURES), dtype="<f4")
    assert receipt(features=values.tobytes()).seen[FEATURES[3]] == 3.0
