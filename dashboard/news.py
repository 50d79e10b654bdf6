"""News: the trend of one entity beside what is usual, its headlines with filters, and the entities that move."""

from __future__ import annotations

import html
from collections.abc import Iterable

import streamlit as st

from dashboard import charts, frame, panels, rows, trends
from dashboard.reads import Reading
from streams.state import views
from streams.state.keys import MARKET
from streams.state.views import Headline, Mover

ALL = "all"
SHOWN = 100  # stories of the feed that are shown
EMPTY = "No headlines about this entity yet. They appear here a moment after they arrive: tapewatch send news FILE"
FILTERED = "No headline of the last {} matches. Take a filter back to see more."


def page() -> None:
    """Draw the page: filters once, what changes each second."""
    if entity := st.session_state.pop("go", None):  # a click; widgets can be set before they are drawn only
        st.session_state["entity"] = entity
    frame.style()
    _filters()
    _live()


def _filters() -> None:
    entity, found, size, label, outlet = st.columns([4, 4, 3, 4, 3], vertical_alignment="bottom")
    feed = _feed(MARKET).value or []
    named = rows.names(feed)
    known = frame.reads().get("entities", lambda store, _: views.entities(store)).value or []
    options = list(dict.fromkeys([MARKET, *sorted(known), *_wanted("entity")]))
    entity.selectbox(
        "Entity", options, key="entity", bind="query-params", format_func=lambda name: _called(name, named)
    )
    found.text_input(
        "Search", key="q", bind="query-params", placeholder="words in title, name or symbol", live=True
    )
    size.segmented_control(
        "Buckets", list(charts.RANGES), default="5m", key="size", bind="query-params", required=True
    )
    label.segmented_control(
        "Sentiment", [ALL, *charts.LABELS], default=ALL, key="label", bind="query-params", required=True
    )
    outlets = list(dict.fromkeys([ALL, *rows.outlets(feed), *_wanted("outlet")]))
    outlet.selectbox("Outlet", outlets, key="outlet", bind="query-params")


@st.fragment(run_every=frame.EVERY)
def _live() -> None:
    reading = frame.reads().overview()
    frame.head(reading)
    clicked: dict[str, object] = {}
    if reading.value is not None:
        entity, size = str(st.session_state.entity), str(st.session_state.size or "5m")
        feed = _feed(entity).value or []
        rail, main = st.columns([3, 10])
        with rail:
            moving = rows.movers([reading.value.market, *reading.value.movers])
            data = {
                "title": "Entities",
                "note": "that move most",
                "rows": moving,
                "columns": ["", "3 h", "5 min"],
            }
            clicked |= panels.show(
                "movers", {**data, "narrow": True, "selected": entity, "empty": ""}, key="rail"
            )
        with main:
            _title(entity, size, feed, [reading.value.market, *reading.value.movers])
            trends.draw(entity, size, reading.value.alerts, 220)
            clicked |= _tape(entity, feed)
    clicked |= frame.foot(reading)
    frame.act(clicked, _go)


def _title(entity: str, size: str, feed: Iterable[Headline], movers: Iterable[Mover]) -> None:
    mover = next((found for found in movers if found.entity == entity), None)
    measure = ""
    if mover is not None:
        measure = f"{mover.negative} negative in 5 min, usual {mover.usual_negative:.1f}"
        measure += f"; {mover.stories} stories, usual {mover.usual_stories:.1f}"
    name = html.escape(_called(entity, rows.names(feed)))
    chart = f"Headlines by sentiment, {charts.RANGES[size][1]}; line: negative stories expected"
    st.html(
        f'<div class="tw"><div class="tw-title-row"><h1>{name}</h1><span>{measure}</span></div>'
        f'<h2><small style="margin:0">{chart}</small></h2></div>'
    )


def _tape(entity: str, feed: list[Headline]) -> dict[str, object]:
    state = st.session_state
    wanted = rows.Filter(
        label="" if state.label in (None, ALL) else state.label,
        outlet="" if state.outlet in (None, ALL) else state.outlet,
        text=state.q or "",
    )
    shown = rows.tape(feed, wanted, SHOWN)
    total = len({headline.story or headline.id for headline in feed})
    note = f"{len(shown)} of {total} stories" + (", newest first" if shown else "")
    empty = "" if shown else (FILTERED.format(f"{total} stories") if feed else EMPTY)
    data = {"title": "Headlines", "note": note, "rows": shown, "compact": False, "empty": empty}
    return panels.show("tape", {**data, "query": f"{entity} {wanted}"})


def _feed(entity: str) -> Reading[list[Headline]]:
    return frame.reads().get(("feed", entity), lambda store, _: views.feed(store, entity))


def _called(entity: str, named: dict[str, str]) -> str:
    if entity == MARKET:
        return "Market, all headlines"
    symbol = entity.partition(":")[2] or entity
    name = named.get(entity, "")
    return f"{symbol} {name}" if name and name != symbol else symbol


def _wanted(name: str) -> list[str]:
    """What the URL asks for, so that it can be chosen even while the store does not know it."""
    found = str(st.query_params.get(name, ""))
    return [found[:200]] if found else []


def _go(entity: str) -> None:
    st.session_state["go"] = entity
    st.rerun()
