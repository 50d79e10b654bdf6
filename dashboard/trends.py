"""The trend chart of an entity, as both pages show it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa  # type: ignore[import-untyped]  # it comes with Streamlit
import streamlit as st

from dashboard import charts, frame
from dashboard.reads import Reading
from streams.state.keys import MARKET
from streams.state.store import Store
from streams.state.views import AlertView
from streams.windows.trend import KIND, Bucket, trend

RULES = 5  # alerts that a chart shows, the newest
TITLES = {"kind": pa.string(), "label": pa.string(), "text": pa.string()}


def read(entity: str, size: str) -> Reading[list[Bucket]]:
    """The buckets of an entity over the range that belongs to this size."""

    def load(store: Store, now: float) -> list[Bucket]:
        now_ms = int(now * 1000)
        since, until = charts.window(size, now_ms)
        return trend(store, entity, size, since, until, now_ms)

    return frame.reads().get(("trend", entity, size), load)


def draw(entity: str, size: str, alerts: Sequence[AlertView], height: int) -> None:
    """The chart; nothing while nothing was read yet."""
    found = read(entity, size).value
    if found is None:
        return
    first = charts.start_of_range(found)
    ours = (view for view in alerts if view.record.kind == KIND)
    marks = [_rule(view, entity) for view in ours if entity in (MARKET, view.record.entity)]
    marks = sorted(mark for mark in marks if mark.at >= first)[-RULES:]
    columns = charts.rows(found, size, marks)
    table = pa.table(
        {name: pa.array(values, TITLES.get(name, pa.float64())) for name, values in columns.items()}
    )
    spec = charts.spec(frame.theme(), frame.scheme(), frame.zone(), height)
    st.vega_lite_chart(table, spec, theme=None, key=f"trend-{entity}-{size}", width="stretch")


def _rule(view: AlertView, entity: str) -> charts.Rule:
    """An alert's rule, with the name of its entity where the chart is not of that entity alone."""
    symbol = view.record.entity.partition(":")[2] or view.record.entity
    name = f"{symbol} {view.severity}" if entity == MARKET else f"{view.severity} alert"
    return charts.Rule(view.opened, name, view.severity if view.active else "over")
