"""What an analyst says, on a real broker."""

from __future__ import annotations

import msgspec
import pytest

from streams import verdicts
from streams.launch.commands import create_topics
from streams.launch.embedded import EmbeddedBroker, free_port
from streams.records import LabelRecord
from streams.settings import Settings
from streams.verdicts import NotSent, send_verdict
from tests.streams.topic import read_all


def test_a_verdict_is_a_label(unique: str) -> None:
    """It is on the topic when the function returns, keyed by the payment it judges."""
    with EmbeddedBroker() as broker:
        settings = Settings(kafka=broker.bootstrap, redis="redis://127.0.0.1:1", prefix=unique)
        create_topics(settings)
        sent = send_verdict(settings, "p1", "fraud", by="ada", account="A1", terminal="T1")
        (record,) = read_all(broker.bootstrap, settings.topic("labels"))
    assert record.key == b"p1"
    assert msgspec.json.decode(record.value, type=LabelRecord) == sent
    assert (sent.subject, sent.ref, sent.label, sent.by) == ("transaction", "p1", "fraud", "ada")


def test_a_broker_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that does not arrive in time is an error that names the broker."""
    monkeypatch.setattr(verdicts, "WITHIN", 0.3)
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", redis="redis://127.0.0.1:1")
    with pytest.raises(NotSent, match=r"the broker at 127\.0\.0\.1:\d+ did not answer within"):
        send_verdict(settings, "p1", "fraud", by="ada")
