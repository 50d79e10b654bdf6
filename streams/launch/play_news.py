"""The sample of headlines: three hours of history at full speed, then the present, for ever.

Headlines are real, their times and outlets are made up. Every loop has new ids and times, and is longer than the memory
of stories, so that no loop is taken for copies of the one before. Started again, it goes on without the history.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams import records
from streams.guard import Out
from streams.publisher import Publisher
from streams.records import News
from streams.settings import Settings
from streams.state.keys import MARKET
from streams.state.store import Store

log = logging.getLogger("tapewatch.replay")

SAMPLES = Path(__file__).parent / "samples"
HISTORY = 3 * 3600.0  # seconds
AT_ONCE = 500


def load(sample: str) -> tuple[list[dict[str, Any]], int]:
    """The records of a sample, and the index of the first one that is played live."""
    with gzip.open(SAMPLES / f"{sample}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    meta = json.loads((SAMPLES / f"{sample}.meta.json").read_text(encoding="utf-8"))
    return rows, int(meta["live_from"])


def history(rows: Sequence[dict[str, Any]], live_from: int, run: str, now: float) -> list[News]:
    """The rows before `live_from` with times that end at `now` (unix seconds) and reach three hours back."""
    total = sum(row["gap"] for row in rows[:live_from])
    scale, at = (HISTORY / total if total else 0.0), now - HISTORY
    made = []
    for index, row in enumerate(rows[:live_from]):
        at += row["gap"] * scale
        made.append(record(row, f"{run}-0-{index}", min(at, now)))
    return made


def record(row: dict[str, Any], identity: str, at: float) -> News:
    """A row of the sample as a record with this id and time (unix seconds)."""
    return News(
        id=identity,
        ts=records.as_time(at),
        source=row["source"],
        title=row["title"],
        symbols=row.get("symbols", []),
        lang=row.get("lang", ""),
    )


async def play(settings: Settings, store: Store, publisher: Publisher) -> None:
    """Publish the sample until cancelled; the history only to a store that has no headlines."""
    topic = settings.topic("news")
    rows, live_from = load("news")
    run = f"replay-{int(time.time()):x}"
    if not await asyncio.to_thread(store.client.exists, store.keys.feed(MARKET)):
        made = history(rows, live_from, run, time.time())
        for start in range(0, len(made), AT_ONCE):
            await publisher.publish([_out(topic, item) for item in made[start : start + AT_ONCE]])
        log.info("replayed %d headlines of the last three hours", len(made))
    loop, first = 0, live_from
    due = time.monotonic()
    while True:
        for index in range(first, len(rows)):
            due += rows[index]["gap"]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await publisher.publish([_out(topic, record(rows[index], f"{run}-{loop}-{index}", time.time()))])
        loop, first = loop + 1, 0


def _out(topic: str, item: News) -> Out:
    return Out(topic, item.id.encode(), records.encode(item))
