"""`tapewatch score`: the same pipeline code over a file, with no broker and a store of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TextIO

from streams.guard import Dead, Guard, Item
from streams.launch.embedded import EmbeddedStore
from streams.launch.files import Line, read_records
from streams.launch.rows import Tolerance
from streams.pipelines import PIPELINES, kinds, open_pipeline
from streams.records import SOURCES
from streams.settings import Settings
from streams.state.store import Store

REPORT_EVERY = 5.0  # seconds


def score(
    settings: Settings, name: str, path: str, mapping: Mapping[str, str], out: TextIO, every: bool
) -> None:
    """Write the derived records of a file's rows to `out`, in order, one JSON object a line.

    With `every`, all derived topics as `{"topic", "key", "value"}`; without, the pipeline's main one. Dead letters are
    reported on standard error. Raises DataFileError, EngineError, EmbeddedError.
    """
    with EmbeddedStore() as server:
        private = replace(settings, kafka="private", redis=server.url)
        store = Store(server.url, private.prefix)
        pipeline = open_pipeline(name, private, store, private.threads or (os.cpu_count() or 1))
        guard = Guard(pipeline, store, kinds(name, private))
        main, tolerance = private.topic(PIPELINES[name].derived[0]), Tolerance(path)
        began = reported = time.monotonic()
        for batch in _batches(private, name, path, mapping, pipeline.batch):
            now = time.time()
            items = [item for _, item in batch]
            guard.prepare([item for item in items if item.dead is None], now)
            guard.commit(items, now)
            guard.judge(items, now)
            for line, item in batch:
                if item.dead is not None:
                    tolerance.reject(line.number, f"dead letter ({item.dead.stage}): {item.dead.error}")
                    continue
                tolerance.accept()
                if item.status == "duplicate":
                    print(
                        f"{path}, line {line.number}: id {item.record.id!r} came before; skipped",
                        file=sys.stderr,
                    )
            for made in guard.outputs([item for item in items if item.dead is None], now):
                if every:
                    value = json.loads(made.value)
                    print(
                        json.dumps({"topic": made.topic, "key": (made.key or b"").decode(), "value": value}),
                        file=out,
                    )
                elif made.topic == main:
                    print(made.value.decode(), file=out)
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                rate = tolerance.good / (reported - began)
                print(f"{tolerance.good:,} records scored, {rate:,.0f} a second", file=sys.stderr)
        pipeline.close()
        store.close()
        tolerance.judge()


def _batches(
    settings: Settings, name: str, path: str, mapping: Mapping[str, str], size: int
) -> Iterator[list[tuple[Line, Item]]]:
    source = PIPELINES[name].sources[0]
    topic, batch = settings.topic(source), []
    for offset, line in enumerate(read_records(path, SOURCES[source], mapping, time.time())):
        item = Item(topic, "file", 0, offset, None, line.raw, offset - 1 if offset else None)
        if line.record is None:
            item.dead = Dead("decode", line.error)
        batch.append((line, item))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
