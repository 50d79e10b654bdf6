"""The retraining set: judged payments out of Kafka."""

from __future__ import annotations

import io
import json
import time
from typing import Any

from kafka import KafkaProducer

from streams.launch.commands import create_topics
from streams.launch.labelled import export_labelled
from streams.settings import Settings

NOW = time.time()


def stamp(days_ago: float) -> str:
    """A time on the wire."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - days_ago * 86_400))


def payment(name: str, days_ago: float) -> dict[str, Any]:
    """A transaction."""
    return {"id": name, "ts": stamp(days_ago), "account": "a", "terminal": "t", "amount": 5.0}


def label(name: str, ref: str, verdict: str, days_ago: float, subject: str = "transaction") -> dict[str, Any]:
    """A label."""
    return {"id": name, "ts": stamp(days_ago), "subject": subject, "ref": ref, "label": verdict}


def test_judged_payments_are_exported_once_with_their_last_verdict(broker: str, unique: str) -> None:
    """Verdicts by their own time, ripe silence as honest, unripe silence and poison left out, copies once."""
    settings = Settings(kafka=broker, redis="redis://unused", prefix=unique)
    create_topics(settings)
    producer = KafkaProducer(bootstrap_servers=broker)
    paid = [payment("p1", 50), payment("p2", 50), payment("p3", 1), payment("p4", 1), payment("p1", 50)]
    judged = [
        label("l1", "p1", "legit", 20),
        label("l2", "p1", "fraud", 40),
        label("l3", "p4", "fraud", 0.5),
        label("l4", "p3", "negative", 0.5, subject="news"),
    ]
    for topic, records in (("transactions", paid), ("labels", judged)):
        for record in records:
            producer.send(settings.topic(topic), json.dumps(record).encode(), key=b"k")
        producer.send(settings.topic(topic), b"{", key=b"k")
    producer.flush()
    producer.close()
    out = io.StringIO()
    export_labelled(settings, out, ripe=30)
    found = {row["id"]: row for row in map(json.loads, out.getvalue().splitlines())}
    assert {name: row["label"] for name, row in found.items()} == {"p1": 0, "p2": 0, "p4": 1}
    assert len(out.getvalue().splitlines()) == 3
    assert found["p2"]["labelled_at"] is None
    assert found["p1"]["account"] == "a"
