"""Overview: what to act on, how the market feels, who moves, what came last, and whether the machine is well."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard import charts, frame, machine, panels, rows, trends
from streams.state.keys import MARKET

ALERTS_EMPTY = (
    "No alerts yet. One appears when a company has far more negative stories, or a terminal, account or\n"
    "country far more suspicious payments, in 5 minutes than usual."
)
EMPTY = (
    "No headlines yet. They appear here a moment after they arrive.\n"
    "Send some: tapewatch send news FILE, or start the sample: tapewatch up --replay news"
)
COLUMNS = ["entity", "stories, 3 h", "stories, 5 min", "negative, 5 min", "last"]


def page() -> None:
    """Draw the page, and again each second."""
    frame.style()
    _live()


@st.fragment(run_every=frame.EVERY)
def _live() -> None:
    reading = frame.reads().overview()
    shown = reading.value
    frame.head(reading)
    clicked: dict[str, Any] = {}
    if shown is not None:
        opened = str(st.query_params.get("alert", ""))
        reads = frame.reads()
        found = machine.figures(shown, list(reads.history), list(reads.paid))
        panels.show("figures", {"figures": found})
        left, right = st.columns([7, 5])
        with left:
            found = rows.alerts(shown.alerts, opened)
            note = "firing first, then by time of change"
            data: dict[str, Any] = {
                "title": "Alerts",
                "note": note if found else "",
                "rows": found,
                "open": opened,
            }
            clicked |= panels.show("alerts", {**data, "empty": "" if found else ALERTS_EMPTY})
            moving = rows.movers(shown.movers)
            data = {"title": "Entities that move", "note": "last 5 min beside what is usual"}
            empty = "" if moving else "Entities appear here when headlines speak of them."
            clicked |= panels.show("movers", {**data, "columns": COLUMNS, "rows": moving, "empty": empty})
        with right:
            st.html(_TITLE)
            trends.draw(MARKET, "5m", shown.alerts, 196)
            latest = rows.tape(shown.newest, limit=12)
            data = {"title": "Newest headlines", "note": "one row a story", "rows": latest, "compact": True}
            clicked |= panels.show("tape", {**data, "query": "", "empty": "" if latest else EMPTY})
    clicked |= frame.foot(reading)
    frame.act(clicked, frame.go)


_TITLE = (
    f'<div class="tw"><h2>Market mood <small>headlines by sentiment, {charts.RANGES["5m"][1]}; '
    "line: negative stories expected</small></h2></div>"
)
