"""Long runs in real time, for `make soak`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.running import running_up
from tests.stimulus import ENTITIES, background, burst, interleaved
from tests.streams.crash import wait_for


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_surge_stimulus_in_real_time(tmp_path: Path) -> None:
    """Ten entities at once, headlines scored by the shipped model: ten fire within 10 s of the last, all resolve."""
    with running_up(tmp_path, "--no-dashboard", "--replay", "none") as up:
        start = time.time()
        up.produce(interleaved([background(entity, start) for entity in ENTITIES]))
        records = interleaved([burst(entity, start) for entity in ENTITIES])
        step = 55.0 / len(records)
        for number in range(0, len(records), 10):
            time.sleep(max(0.0, start + number * step - time.time()))
            up.produce(records[number : number + 10])
        last = time.time()
        wanted = {f"symbol:{entity}" for entity in ENTITIES}
        wait_for("ten alerts", lambda: {row["entity"] for row in up.table("alerts")} == wanted, 10)
        fired = time.time() - last
        wait_for("all resolved", lambda: {row["state"] for row in up.table("alerts")} == {"resolved"}, 900)
        rows = up.table("alerts")
        entities = Counter(row["entity"] for row in rows)
    took = f"fired {fired:.1f} s after the last headline, resolved {time.time() - last:.0f} s after it"
    print(
        f"{len(wanted & set(entities))} fired, {len(rows)} resolved, {len(rows) - 10} beyond; {took}",
        file=sys.stderr,
    )
    assert entities == dict.fromkeys(wanted, 1)
