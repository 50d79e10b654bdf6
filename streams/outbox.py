"""What a pipeline has to publish because of changes that only the store knew: lists in the store, one a partition.

A script writes an entry in the same atomic step as the change (transition.lua, overdue.lua); the agent publishes what
it finds, oldest first, and only then lets it go.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from streams.guard import Out
from streams.state.store import Store, as_text

AT_ONCE = 500  # entries of a list


class Outbox:
    """The lists of one pipeline. Both methods raise Unavailable."""

    def __init__(self, pipeline: str, store: Store) -> None:
        self._pipeline = pipeline
        self._store = store

    def read(self, partitions: Sequence[int]) -> list[tuple[str, bytes]]:
        """The oldest entries of these partitions, each with the key of its list."""
        keys = [self._store.keys.outbox(self._pipeline, partition) for partition in partitions]
        pipe = self._store.client.pipeline(transaction=False)
        for key in keys:
            pipe.lrange(key, 0, AT_ONCE - 1)
        found = self._store.call(pipe.execute)
        return [(key, entry) for key, entries in zip(keys, found, strict=True) for entry in entries]

    def forget(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """Let go of entries that were published."""
        pipe = self._store.client.pipeline(transaction=False)
        for key, entry in entries:
            pipe.lrem(key, 1, entry)  # type: ignore[arg-type]
        self._store.call(pipe.execute)


def record_of(entry: bytes) -> Out:
    """The record that an entry stands for: JSON of `topic`, `key`, `value` and perhaps `headers`."""
    found = json.loads(as_text(entry))
    headers = tuple((name, value.encode()) for name, value in found.get("headers", {}).items())
    return Out(found["topic"], found["key"].encode(), found["value"].encode(), headers)
