"""The floor: aiokafka's `getmany` in a loop, committing each second, on uvloop."""

from __future__ import annotations

import uvloop
from aiokafka import AIOKafkaConsumer

from tests.benchmarks.consumers.meter import Job, Meter, read_job


async def consume(job: Job) -> None:
    """Read until the meter ends the process."""
    meter = Meter(job.total)
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=True,
        auto_commit_interval_ms=1_000,
        max_partition_fetch_bytes=2 * 1024 * 1024,
        fetch_max_wait_ms=job.fetch_wait_ms or 500,
    )
    await consumer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=5_000)).values():
            meter.all(record.value for record in records)


if __name__ == "__main__":
    uvloop.run(consume(read_job()))
