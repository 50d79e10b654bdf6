"""When a worker collects garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from streams.garbage import AFTER, EVERY, Collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def full() -> int:
    """Full collections of this process so far."""
    return int(gc.get_stats()[2]["collections"])


def test_full_collections_come_by_the_clock_and_between_batches() -> None:
    """While batches are under way a full collection waits for its longer limit, else for the shorter one."""
    now = 0.0
    collector = Collector(lambda: now)
    before = full()
    now = EVERY - 1
    assert not collector.look(idle=True)
    now = EVERY
    assert not collector.look(idle=False)
    assert collector.look(idle=True)
    assert full() == before + 1
    now = EVERY + AFTER - 1
    assert not collector.look(idle=False)
    now = EVERY + AFTER
    assert collector.look(idle=False)
    assert full() == before + 2


def test_no_full_collection_starts_by_itself() -> None:
    """Half a million objects that stay start no full collection."""
    Collector()
    before = full()
    kept = [[number] for number in range(500_000)]
    assert len(kept) == 500_000
    assert full() == before
