"""Ours: runs handed to one agent, each acknowledged when it is decoded, committed each second."""

from __future__ import annotations

from streams.transport import Run, consume, make_app, run
from tests.benchmarks.consumers.meter import Meter, read_job

job = read_job()
meter = Meter(job.total)


async def handle(runs: list[Run]) -> None:
    """Decode, acknowledge."""
    for one in runs:
        meter.all(record.value or b"" for record in one.records)
        one.ack()


if __name__ == "__main__":
    app = make_app(
        "bench",
        bootstrap=job.bootstrap,
        group=job.group,
        max_batch_records=5_000,
        fetch_wait_ms=job.fetch_wait_ms,
    )
    consume(app, [job.topic], handle, 10_000)
    run(app)
