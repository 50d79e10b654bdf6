"""The trend chart of an entity, as both pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import streamlit as st

from dashboard import charts, frame
from dashboard.reads import Reading
from streams.state.store import Store
from streams.state.views import AlertView

try:
    from streams.windows.trend import trend
except ImportError:
    from streams.state.store import as_text
    from streams.windows.buckets import SIZES, decode, slices

    def trend(store, entity, size, since, until, now_ms):
        sz = SIZES[size]
        pipe = store.client.pipeline(transaction=False)
        for s in slices(sz, since, until):
            pipe.hgetall(store.keys.trend(entity, size, s))
        b = decode((as_text(k), int(v)) for h in store.call(pipe.execute) for k, v in h.items())
        n = ("negative", "neutral", "positive", "stories", "negative_stories")
        out = [{"start": t, **{k: b.get(t, {}).get(k, 0) for k in n}} for t in range(since, until, sz.width)]
        m = sum(o["negative_stories"] for o in out) / len(out)
        return [{**o, "baseline": m} for o in out]


TITLES = {"kind": pa.string(), "label": pa.string(), "text": pa.string()}


def read(entity: str, size: str) -> Reading[list[dict[str, Any]]]:
    """The buckets of an entity over the range that belongs to this size."""

    def load(store: Store, now: float) -> list[dict[str, Any]]:
        now_ms = int(now * 1000)
        since, until = charts.window(size, now_ms)
        return trend(store, entity, size, since, until, now_ms)

    return frame.reads().get(("trend", entity, size), load)


def draw(entity: str, size: str, alerts: Sequence[AlertView], height: int) -> None:
    """The chart; nothing while nothing was read yet."""
    found = read(entity, size).value
    if found is None:
        return
    first = min((bucket["start"] for bucket in found), default=0)
    marks = [
        (opened, f"{view.record.severity} alert")
        for view in alerts
        if view.record.entity == entity and (opened := view.opened) >= first
    ]
    columns = charts.rows(found, size, marks)
    table = pa.table(
        {name: pa.array(values, TITLES.get(name, pa.float64())) for name, values in columns.items()}
    )
    spec = charts.spec(frame.theme(), frame.scheme(), frame.zone(), height)
    st.vega_lite_chart(table, spec, theme=None, key=f"trend-{entity}-{size}", width="stretch")
