"""`tapewatch labels export`: the retraining set, the payments on Kafka with what is known of them by now.

Kafka is the truth: both topics are read from their beginning to where they end now, and joined by id; of several
verdicts the one with the latest time stands. A payment without a verdict that is older than `ripe` days is taken as
honest, a younger one is left out: nobody could know yet. `models train transactions` reads it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streams import records
from streams.records import LabelRecord, Malformed, Record, Transaction
from streams.settings import Settings
from streams.topics import TopicsError
from streams.transactions import VERDICTS

SILENCE_MS = 10_000  # a broker that says nothing for so long is away


def export_labelled(settings: Settings, out: TextIO, ripe: float) -> None:
    """Write JSON Lines of transactions with `label` (0 or 1) and `labelled_at`, in order of arrival per partition.

    `ripe` in days. Raises TopicsError.
    """
    verdicts: dict[str, tuple[float, int]] = {}
    for label in _read(settings, "labels", LabelRecord):
        verdict = VERDICTS.get(label.label.strip().lower()) if label.subject == "transaction" else None
        at = label.ts.timestamp()
        if verdict is not None and at >= verdicts.get(label.ref, (0.0, 0))[0]:
            verdicts[label.ref] = (at, int(verdict == "fraud"))
    written = frauds = 0
    before, seen = time.time() - ripe * 86_400, set()
    for payment in _read(settings, "transactions", Transaction):
        known = verdicts.get(payment.id)
        if payment.id in seen or (known is None and payment.ts.timestamp() > before):
            continue
        seen.add(payment.id)
        fields: dict[str, Any] = json.loads(records.encode(payment))
        fields["label"] = known[1] if known else 0
        fields["labelled_at"] = records.as_time(known[0]).isoformat() if known else None
        print(json.dumps(fields), file=out)
        written, frauds = written + 1, frauds + fields["label"]
    print(f"{written:,} payments, {frauds:,} of them frauds", file=sys.stderr)


def _read(settings: Settings, topic: str, kind: type[Any]) -> Iterator[Any]:
    """The good records of a topic as far as it goes now."""
    name, now = settings.topic(topic), time.time()
    try:
        consumer = KafkaConsumer(bootstrap_servers=settings.kafka.split(","), enable_auto_commit=False)
    except KafkaError as problem:
        raise TopicsError(f"no Kafka broker answers at {settings.kafka}: {problem}") from None
    try:
        found = consumer.partitions_for_topic(name)
        if not found:
            raise TopicsError(f"no topic {name}; `tapewatch topics create` makes it")
        partitions = [TopicPartition(name, number) for number in sorted(found)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            before = [consumer.position(tp) for tp in partitions]
            batches = consumer.poll(timeout_ms=SILENCE_MS).values()
            if not batches and before == [consumer.position(tp) for tp in partitions]:
                raise TopicsError(f"the broker at {settings.kafka} does not answer; try again")
            for batch in batches:
                for one in batch:
                    try:
                        record: Record = records.decode(kind, one.value, now)
                    except Malformed:
                        continue
                    yield record
    finally:
        consumer.close()
