"""Vega-Lite specifications, constant for a theme, and the rows that they draw. Pure.

One chart: headlines of an entity by sentiment as stacked bars, negative at the foot; the negative stories expected as
a thin line with a band; alerts as vertical rules with their names. One flat table holds all, told apart by `kind`, so
that only data change from second to second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from dashboard import palette
from streams.windows.buckets import SIZES
from streams.windows.trend import Bucket

# Size of bucket -> how many are shown, and how the page calls it.
RANGES = {
    "1m": (60, "1-minute buckets, last hour"),
    "5m": (36, "5-minute buckets, last 3 h"),
    "1h": (48, "1-hour buckets, last 2 days"),
    "1d": (60, "1-day buckets, last 60 days"),
}
LABELS = ("negative", "neutral", "positive")
ROOM = 4  # headlines that the axis has room for at least
BAND = 2.0  # standard deviations of a Poisson count on each side of the expected number
COLUMNS = ("kind", "start", "end", "label", "count", "low", "high", "stories", "negative_stories", "text")


class Rule(NamedTuple):
    """An alert on the chart: when it opened (ms), its name, and its severity, or `over`."""

    at: int
    name: str
    tone: str


def window(size: str, now_ms: int) -> tuple[int, int]:
    """Since when and until when the buckets of this size are shown, in ms; the open bucket is the last."""
    width = SIZES[size].width
    until = now_ms - now_ms % width + width
    return until - RANGES[size][0] * width, until


def rows(trend: Iterable[Bucket], size: str, alerts: Sequence[Rule] = ()) -> dict[str, list[Any]]:
    """The chart's table by column, from trend rows and alerts."""
    width, made = SIZES[size].width, []
    for bucket in trend:
        start, expected = _ms(bucket["start"]), bucket["baseline"]
        counts = {
            "negative": bucket["negative"],
            "neutral": bucket["neutral"],
            "positive": bucket["positive"],
        }
        common: dict[str, Any] = {"start": start, "end": start + width, "stories": bucket["stories"]}
        common["negative_stories"] = bucket["negative_stories"]
        foot, drawn = 0, {**common, "end": start + width - width // 10}  # a gap between bars
        for label in LABELS:
            count = counts[label]
            bar = {"kind": "bar", "label": label, "count": count, "low": foot, "high": foot + count}
            made.append({**drawn, **bar})
            foot += count
        spread = BAND * math.sqrt(expected)
        band = {"count": expected, "low": max(0.0, expected - spread), "high": expected + spread}
        made.append({**common, **band, "kind": "baseline"})
    if made:
        made.append({**made[-1], "start": made[-1]["end"]})  # the last step of the baseline has a length too
    made.append({"kind": "room", "start": made[0]["start"] if made else None, "high": ROOM})
    made += [
        {"kind": "alert", "start": rule.at, "end": rule.at, "text": rule.name, "label": rule.tone}
        for rule in alerts
    ]
    return {name: [row.get(name) for row in made] for name in COLUMNS}


def start_of_range(trend: Iterable[Bucket]) -> int:
    """The start of the first bucket, in ms; 0 where there is none."""
    return min((_ms(bucket["start"]) for bucket in trend), default=0)


def spec(theme: palette.Theme, scheme: str, zone: str, height: int) -> dict[str, Any]:
    """The chart of a trend; `zone` names the viewer's time zone on the axis."""
    colour = palette.colours(theme, scheme)
    x = {
        "field": "start",
        "type": "temporal",
        "axis": {"title": zone, "format": "%H:%M", "tickCount": 8, "grid": False, "labelOverlap": True},
    }
    y = {
        "type": "quantitative",
        "axis": {"title": "headlines", "tickMinStep": 1, "tickCount": 4, "format": "d"},
        "scale": {"zero": True, "nice": True},
    }
    shades = {"domain": list(LABELS), "range": [colour[label] for label in LABELS]}
    bars = {
        "transform": [{"filter": "datum.kind === 'bar'"}],
        "mark": "rect",
        "encoding": {
            "x": x,
            "x2": {"field": "end"},
            "y": {**y, "field": "low"},
            "y2": {"field": "high"},
            "color": {
                "field": "label",
                "type": "nominal",
                "scale": shades,
                "legend": {"title": None, "orient": "top", "symbolType": "square", "offset": 20},
            },
            "tooltip": [
                {"field": "start", "type": "temporal", "format": "%H:%M:%S", "title": "from"},
                {"field": "label", "type": "nominal", "title": "sentiment"},
                {"field": "count", "type": "quantitative", "title": "headlines"},
                {"field": "stories", "type": "quantitative", "title": "stories"},
                {"field": "negative_stories", "type": "quantitative", "title": "negative stories"},
            ],
        },
    }
    baseline = [{"filter": "datum.kind === 'baseline'"}]
    middle = {"x": {**x, "bandPosition": 0.5}}
    band = {
        "transform": baseline,
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.12, "color": colour["text"]},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    line = {
        "transform": baseline,
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "color": colour["text"]},
        "encoding": {
            **middle,
            "y": {**y, "field": "count"},
            "tooltip": [
                {"field": "start", "type": "temporal", "format": "%H:%M:%S", "title": "from"},
                {
                    "field": "count",
                    "type": "quantitative",
                    "format": ".1f",
                    "title": "negative stories expected",
                },
                {"field": "negative_stories", "type": "quantitative", "title": "negative stories"},
            ],
        },
    }
    room = {
        "transform": [{"filter": "datum.kind === 'room'"}],
        "mark": {"type": "point", "opacity": 0, "tooltip": None},
        "encoding": {"x": x, "y": {**y, "field": "high"}},
    }
    alert = [{"filter": "datum.kind === 'alert'"}]
    tests = [{"test": f"datum.label === '{tone}'", "value": colour[tone]} for tone in ("critical", "warning")]
    tone = {"condition": tests, "value": colour["muted"]}
    rule = {
        "transform": alert,
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {
            "x": x,
            "color": tone,
            "tooltip": [{"field": "text", "type": "nominal", "title": "alert"}],
        },
    }
    name = {
        "transform": alert,
        "mark": {
            "type": "text",
            "align": "right",
            "baseline": "bottom",
            "dx": 1,
            "fontSize": 12,
        },
        "encoding": {"x": x, "y": {"value": -4}, "color": tone, "text": {"field": "text", "type": "nominal"}},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "height": height,
        "padding": {"left": 0, "right": 8, "top": 4, "bottom": 4},
        "layer": [room, bars, band, line, rule, name],
        "config": _config(colour),
    }


def _config(colour: Mapping[str, str]) -> dict[str, Any]:
    axis = {
        "labelColor": colour["muted"],
        "titleColor": colour["muted"],
        "gridColor": colour["line"],
        "domainColor": colour["line"],
        "tickColor": colour["line"],
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 400,
        "domain": False,
    }
    return {
        "background": colour["background"],
        "font": "Source Sans, sans-serif",
        "view": {"stroke": None},
        "axis": axis,
        "legend": {"labelColor": colour["muted"], "labelFontSize": 12},
    }


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
