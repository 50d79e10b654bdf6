"""Stock Faust: an agent that gets raw bytes; Faust acknowledges and commits; on uvloop, which helps it."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import uvloop

from streams.transport import run
from tests.benchmarks.consumers.meter import Meter, read_job

if __name__ == "__main__":
    job = read_job()
    meter = Meter(job.total)
    app = faust.App(
        job.group,
        broker=f"aiokafka://{job.bootstrap}",
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=2 * 1024 * 1024,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )

    @app.agent(app.topic(job.topic, value_type=bytes, value_serializer="raw"))
    async def decode(stream: Any) -> None:
        """Decode each record."""
        async for value in stream:
            meter.one(value)

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    run(app)
