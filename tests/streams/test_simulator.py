"""The simulator: one seed gives one world, its fraud is what its scenarios say, its labels come late."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from streams import records
from streams.payments.money import RATES
from streams.payments.population import COUNTRIES, Scale
from streams.payments.scenarios import DAY, HOUR, SCENARIOS
from streams.payments.simulator import NEVER, Payments, Simulator, labels, rows, transactions

FIRST = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp() * 1000) // DAY
SMALL = Scale(accounts=600, terminals=120)


@pytest.fixture(scope="module")
def fortnight() -> list[Payments]:
    """Two weeks of a small world."""
    return list(Simulator(7, SMALL).between(FIRST * DAY, (FIRST + 14) * DAY))


def column(made: list[Payments], name: str) -> np.ndarray:
    return np.concatenate([getattr(day, name) for day in made])


def test_a_day_is_the_same_whichever_days_were_made_before() -> None:
    """The payments of a day depend on the seed and the day alone."""
    one, other = Simulator(7, SMALL), Simulator(7, SMALL)
    one.day(FIRST)
    assert list(transactions(one.day(FIRST + 3))) == list(transactions(other.day(FIRST + 3)))
    assert list(transactions(Simulator(8, SMALL).day(FIRST))) != list(transactions(one.day(FIRST)))


def test_payments_are_in_order_and_within_their_time() -> None:
    """`between` gives the payments of a span in order of time, the end excluded."""
    since, until = FIRST * DAY + 20 * HOUR, (FIRST + 1) * DAY + 4 * HOUR
    made = list(Simulator(7, SMALL).between(since, until))
    at = column(made, "at")
    assert len(at) > 500
    assert (np.diff(at) >= 0).all()
    assert since <= at[0]
    assert at[-1] < until


def test_every_payment_is_a_record_of_the_contract(fortnight: list[Payments]) -> None:
    """Each payment decodes as the contract wants it, and no id comes twice."""
    now = (FIRST + 14) * DAY / 1000
    found = [
        records.decode(records.Transaction, records.encode(payment), now)
        for day in fortnight[:2]
        for payment in transactions(day)
    ]
    assert len({payment.id for payment in found}) == len(found)
    assert all(payment.amount > 0 for payment in found)
    assert {payment.country for payment in found} <= {country.code for country in COUNTRIES}


def test_every_scenario_happens_and_fraud_is_about_as_rare_as_asked(fortnight: list[Payments]) -> None:
    """About one payment in a hundred is fraud, of every kind."""
    scenario = column(fortnight, "scenario")
    assert set(np.unique(scenario)) == set(range(len(SCENARIOS)))
    assert 0.005 < (scenario > 0).mean() < 0.02


def test_fraud_looks_like_its_scenario(fortnight: list[Payments]) -> None:
    """Tests of cards cost cents, large fraud is large, takeovers come from abroad."""
    rates = np.array([RATES[country.currency] for country in COUNTRIES])
    dollars = column(fortnight, "amount") * rates[column(fortnight, "country")]
    scenario = column(fortnight, "scenario")
    usual = float(np.median(dollars[scenario == 0]))
    assert float(np.median(dollars[scenario == SCENARIOS.index("testing")])) < usual / 5
    assert float(np.median(dollars[scenario == SCENARIOS.index("large")])) > usual * 5
    assert float(np.median(dollars[scenario == SCENARIOS.index("stolen")])) > usual * 2


def test_labels_come_late_and_name_their_payment(fortnight: list[Payments]) -> None:
    """A chargeback comes after a day at least, an analyst's verdict within the hour, both with account and terminal."""
    paid = {payment.id: payment for payment in transactions(fortnight[3])}
    found = labels(fortnight[3])
    assert {label.by for label in found} == {"chargeback", "analyst"}
    for label in found:
        payment = paid[label.ref]
        waited = (label.ts - payment.ts).total_seconds()
        assert waited >= 86_400 if label.by == "chargeback" else waited < 3600
        assert (label.account, label.terminal) == (payment.account, payment.terminal)
        assert records.decode(records.LabelRecord, records.encode(label), label.ts.timestamp()) == label
    assert [label.ts for label in found] == sorted(label.ts for label in found)
    assert (fortnight[3].charged_back_at[~fortnight[3].fraud] == NEVER).all()


def test_rows_are_a_labelled_data_file(fortnight: list[Payments]) -> None:
    """A row has the fields of a transaction and its label."""
    row = next(rows(fortnight[0]))
    fields = {field.name for field in msgspec.structs.fields(records.Transaction)}
    assert fields - {"customer"} <= set(row)
    assert row["label"] in (0, 1)


def test_cards_are_renewed() -> None:
    """New cards appear as old ones end, so that some account is always unknown."""
    simulator = Simulator(7, SMALL)
    early, late = set(simulator.day(FIRST).account.tolist()), set(simulator.day(FIRST + 60).account.tolist())
    assert len(late - early) > 50
