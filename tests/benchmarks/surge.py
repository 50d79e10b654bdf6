"""How often the surge rule cries wolf on bursty counts, beside the plain Poisson tail, and how soon it sees a surge.

Run: `python -m tests.benchmarks.surge [--days 14] [--json]`. Simulated: negative stories about 60 entities, from one in
eight hours to one a minute, with a daily rhythm, half-hours that are lively or dull (gamma, shape 2), and events that
make several stories each (geometric, within ten minutes). Nothing in them is a surge, so every alert is a false one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.windows import surge
from streams.windows.buckets import GRACE, MINUTE
from streams.windows.surge import Period, Series

DAY_MINUTES = 1440
RATES = np.geomspace(1 / 480, 1.0, 12)  # stories a minute
EACH = 5  # entities of each rate
POISSON = 1e-4  # dispersion: as good as none
Threshold = Callable[[surge.Expectation], int]


def main(arguments: list[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = run(options.days, options.seed)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name:52} {value}\n")


def run(days: int, seed: int) -> dict[str, Any]:
    """False alerts a day over all entities, and how a burst of twenty in a minute is met."""
    random = np.random.default_rng(seed)
    counts = [simulate(rate, days, random) for rate in RATES for _ in range(EACH)]
    began = time.process_time()
    false = [false_alerts(series, lambda expected: expected.fires_at) for series in counts]
    spent = time.process_time() - began
    poisson = [false_alerts(series, _poisson) for series in counts]
    met = [burst(series, random, days) for series in counts]
    seen = [stories for stories in met if stories not in (None, -1)]
    by_rate = np.array(false).reshape(len(RATES), EACH).sum(axis=1) / days
    return {
        "entities": len(counts),
        "days": days,
        "stories": int(sum(series.sum() for series in counts)),
        "false alerts a day": round(sum(false) / days, 2),
        "false alerts a day, Poisson tail": round(sum(poisson) / days, 2),
        "false alerts a day by rate, quietest first": [round(float(each), 2) for each in by_rate],
        "bursts of 20 in a minute seen (up to 1 story in 5 min)": f"{len(seen)} of {len([m for m in met if m != -1])}",
        "stories until the alert, median and worst": [int(np.median(seen)), max(seen)] if seen else [],
        "seconds": round(spent, 1),
    }


def simulate(rate: float, days: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Stories a minute."""
    minutes = days * DAY_MINUTES
    rhythm = 1 + 0.8 * np.sin(2 * np.pi * np.arange(minutes) / DAY_MINUTES)
    mood = np.repeat(random.gamma(2.0, 0.5, minutes // 30), 30)
    events = np.flatnonzero(np.ones(minutes)).repeat(random.poisson(rate / 1.5 * rhythm * mood))
    stories = events.repeat(random.geometric(1 / 1.5, len(events)))
    times = stories + np.where(np.diff(stories, prepend=-1) == 0, random.integers(0, 10, len(stories)), 0)
    return np.bincount(times[times < minutes], minlength=minutes)


def false_alerts(counts: NDArray[np.int64], threshold: Threshold) -> int:
    """How many alerts a threshold raises on these counts, each minute judged at its end."""
    windows = np.convolve(counts, np.ones(5, dtype=np.int64))[: len(counts)]
    values = counts.tolist()
    fired, free_from = 0, 0
    periods: list[Period] = []
    series = Series(0, MINUTE, values, 0)
    for minute in np.flatnonzero(windows >= surge.LEAST):
        end = (int(minute) + 1) * MINUTE
        since = end - surge.WINDOW
        if end <= free_from:
            continue
        value = series.total(max(since, free_from), end)
        if value < surge.LEAST or value < threshold(surge.expectation(series, since, end - GRACE)):
            continue
        fired += 1
        while end <= series.end:
            end += MINUTE
            level = threshold(surge.expectation(series, end - surge.WINDOW, end))
            if series.total(end - surge.WINDOW, end) < surge.CLEAR * level:
                break
        free_from = end
        periods = [*periods, Period(since, end)]
        series = Series(0, MINUTE, values, 0, periods)
    return fired


def burst(counts: NDArray[np.int64], random: np.random.Generator, days: int) -> int | None:
    """Twenty stories in a minute of the last day: after which of them the rule fires; None never, -1 not tried."""
    minute = (days - 1) * DAY_MINUTES + int(random.integers(DAY_MINUTES))
    values = counts[: minute + 1].tolist()
    if sum(values[-361:-1]) > 72:
        return -1
    for stories in range(1, 21):
        series = Series(0, MINUTE, [*values[:-1], values[-1] + stories], 0)
        if surge.judge(series, minute * MINUTE, minute * MINUTE - GRACE).fires:
            return stories
    return None


def _poisson(expected: surge.Expectation) -> int:
    return surge.fires_at(expected.mean, POISSON)


if __name__ == "__main__":
    main(sys.argv[1:])
