"""Quix Streams 3: a StreamingDataFrame over raw bytes, committing each second. In an environment of its own."""

from __future__ import annotations

from quixstreams import Application  # type: ignore[import-not-found]

from tests.benchmarks.consumers.meter import Meter, read_job

if __name__ == "__main__":
    job = read_job()
    meter = Meter(job.total)
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_interval=1.0,
        loglevel="ERROR",
    )
    topic = app.topic(job.topic, value_deserializer="bytes", key_deserializer="bytes")
    app.dataframe(topic).update(meter.one)
    app.run()
