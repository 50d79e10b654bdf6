"""Bytewax: its Kafka source and a batch operator; it commits nothing to Kafka. In an environment of its own."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
from bytewax.connectors.kafka import KafkaSource  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found]
from bytewax.testing import run_main  # type: ignore[import-not-found]

from tests.benchmarks.consumers.meter import Meter, read_job


class Nowhere(DynamicSink, StatelessSinkPartition):  # type: ignore[misc]
    """A dataflow must end in a sink: this one is never given anything."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Nowhere:
        """The sink of one worker."""
        return self

    def write_batch(self, items: list[Any]) -> None:
        """Nothing."""


if __name__ == "__main__":
    job = read_job()
    meter = Meter(job.total)

    def decode(messages: list[Any]) -> list[Any]:
        """Decode a batch; nothing goes on."""
        meter.all(message.value for message in messages)
        return []

    flow = Dataflow("bench")
    source = KafkaSource([job.bootstrap], [job.topic], tail=True)
    read = op.input("read", flow, source)
    decoded = op.flat_map_batch("decode", read, decode)
    op.output("nowhere", decoded, Nowhere())
    run_main(flow)
