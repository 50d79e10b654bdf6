"""The chart builder: constant specifications, and rows that add up."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dashboard import charts
from streams.windows.buckets import SIZES
from streams.windows.trend import Bucket

NOW = 1_795_316_803_804  # ms


def bucket(
    start: int, negative: int = 0, neutral: int = 0, positive: int = 0, baseline: float = 1.0
) -> Bucket:
    """One bucket of a trend."""
    return Bucket(
        start=datetime.fromtimestamp(start / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        entity="market",
        negative=negative,
        neutral=neutral,
        positive=positive,
        stories=negative + neutral + positive,
        negative_stories=negative,
        baseline=baseline,
    )


def table(trend: list[Bucket], alerts: tuple[charts.Rule, ...] = ()) -> list[dict[str, object]]:
    """The chart's rows."""
    columns = charts.rows(trend, "5m", alerts)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_bars_are_stacked_from_zero_with_negative_at_the_foot() -> None:
    """Each bar begins where the one below ends; their lengths are the counts."""
    start, _ = charts.window("5m", NOW)
    bars = [row for row in table([bucket(start, 4, 2, 3)]) if row["kind"] == "bar"]
    assert [(row["label"], row["low"], row["high"]) for row in bars] == [
        ("negative", 0, 4),
        ("neutral", 4, 6),
        ("positive", 6, 9),
    ]


def test_an_empty_bucket_is_shown_as_zero() -> None:
    """A bucket without headlines has its rows too, so that the time axis has no hole."""
    start, _ = charts.window("5m", NOW)
    bars = [row for row in table([bucket(start)]) if row["kind"] == "bar"]
    assert [(row["start"], row["count"]) for row in bars] == [(start, 0)] * 3


def test_the_band_of_the_baseline_is_two_standard_deviations_and_never_below_zero() -> None:
    """The band is that of a Poisson count around the number expected."""
    start, _ = charts.window("5m", NOW)
    rows = table([bucket(start, baseline=9.0), bucket(start + 300_000, baseline=1.0)])
    bands = [(row["low"], row["count"], row["high"]) for row in rows if row["kind"] == "baseline"]
    assert bands == [(3.0, 9.0, 15.0), (0.0, 1.0, 3.0), (0.0, 1.0, 3.0)]  # the last one to its end


def test_an_alert_is_a_rule_with_its_name() -> None:
    """An alert stands at the time when it opened."""
    start, _ = charts.window("5m", NOW)
    rows = table([bucket(start)], (charts.Rule(start + 60_000, "critical alert", "critical"),))
    assert [(row["start"], row["text"], row["label"]) for row in rows if row["kind"] == "alert"] == [
        (start + 60_000, "critical alert", "critical")
    ]


@pytest.mark.parametrize("size", charts.RANGES)
def test_a_range_ends_with_the_open_bucket(size: str) -> None:
    """The window is whole buckets, as many as the range has, and the last one holds the present."""
    since, until = charts.window(size, NOW)
    width = SIZES[size].width
    assert (until - since) // width == charts.RANGES[size][0]
    assert since % width == 0
    assert until - width <= NOW < until


def test_the_specification_is_constant() -> None:
    """For one theme, scheme, zone and height the specification is the same, whatever the data."""
    one = json.dumps(charts.spec("dark", "safe", "Europe/London", 200))
    assert json.dumps(charts.spec("dark", "safe", "Europe/London", 200)) == one
    assert json.dumps(charts.spec("light", "safe", "Europe/London", 200)) != one
    assert "data" not in json.loads(one)
    assert "Europe/London" in one


def test_no_trend_is_no_chart_row_but_room() -> None:
    """An empty trend draws nothing."""
    assert [row["kind"] for row in table([])] == ["room"]
