"""The sample of payments: nothing is left out between two stretches, labels come when they are due."""

from __future__ import annotations

from datetime import UTC, datetime

from streams import records
from streams.launch.play_payments import Source
from streams.payments.population import Scale
from streams.payments.scenarios import DAY, HOUR, MINUTE
from streams.payments.simulator import Simulator, transactions
from streams.records import LabelRecord, Transaction

MIDNIGHT = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp() * 1000)
SCALE = Scale(accounts=600, terminals=120)


def test_stretches_of_time_join_without_a_gap() -> None:
    """Asked minute by minute, across midnight, it tells each payment once and in order."""
    since, until = MIDNIGHT - 2 * HOUR, MIDNIGHT + 2 * HOUR
    source, found = Source(Simulator(7, SCALE)), []
    for start in range(since, until, 7 * MINUTE):
        found += [record for _, record in source.until(start, min(start + 7 * MINUTE, until))]
    payments = [record for record in found if isinstance(record, Transaction)]
    whole = [payment for made in Simulator(7, SCALE).between(since, until) for payment in transactions(made)]
    assert payments == whole


def test_labels_follow_their_payment_when_they_are_due() -> None:
    """A label is told after its payment, at its own time and not before."""
    source, known = Source(Simulator(7, SCALE)), set()
    told = []
    for start in range(MIDNIGHT, MIDNIGHT + DAY, HOUR):
        for name, record in source.until(start, start + HOUR):
            if isinstance(record, Transaction):
                known.add(record.id)
            else:
                assert isinstance(record, LabelRecord)
                assert (name, record.ref in known) == ("labels", True)
                assert records.milliseconds(record.ts) < start + HOUR
                told.append(record)
    assert len(told) > 20
    assert [label.ts for label in told] == sorted(label.ts for label in told)
