"""News: the trend of one entity beside what is usual, its headlines with filters, and the entities that move."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import streamlit as st

from dashboard import charts, frame, panels, rows, trends
from dashboard.reads import Reading
from streams.state import views
from streams.state.keys import MARKET
from streams.state.store import Store
from streams.state.views import Headline, Mover, Overview

ALL = "all"
CHART = (
    '<div class="tw"><h2>Sentiment <small>headlines, {}; line: negative stories expected</small></h2></div>'
)
COLUMNS = ["", "3 h", "5 min"]
SHOWN = 100  # stories of the feed that are shown
EMPTY = "No headlines about this entity yet. They appear here a moment after they arrive: tapewatch send news FILE"
AWAY = "Nobody had looked at these headlines before the store went away. They appear when it is back."
FILTERED = "No headline of the last {} matches. Take a filter back to see more."


def page() -> None:
    """Draw the page: filters once, what changes each second."""
    frame.style()
    _filters()
    _live()


def _filters() -> None:
    shape: dict[str, Any] = {"vertical_alignment": "center", "wrap": False}
    entity, found, outlet, size, label = st.columns([4, 4, 3, 3, 5], gap="small", **shape)
    feed = _feed(MARKET).value or []
    named = rows.names(feed)
    known = frame.reads().get("entities", lambda store, _: views.entities(store)).value or []
    options = list(dict.fromkeys([MARKET, *sorted(known), *_wanted("entity")]))
    outlets = list(dict.fromkeys([ALL, *rows.outlets(feed), *_wanted("outlet")]))
    common: dict[str, Any] = {"bind": "query-params", "label_visibility": "collapsed"}
    st.session_state["choice"] = _entity()  # the URL is what counts, so that the back button works
    quiet: dict[str, Any] = {"label_visibility": "collapsed", "on_change": _choose}
    entity.selectbox("Entity", options, key="choice", format_func=lambda name: _called(name, named), **quiet)
    with found:
        frame.search("Search title, name or symbol")
    outlet.selectbox("Outlet", outlets, key="outlet", format_func=_outlet, **common)
    choice: dict[str, Any] = {**common, "required": True}
    size.segmented_control("Buckets", list(charts.RANGES), default="5m", key="size", **choice)
    label.segmented_control("Sentiment", [ALL, *charts.LABELS], default=ALL, key="label", **choice)


@st.fragment(run_every=frame.EVERY)
def _live() -> None:
    reading = frame.reads().overview()
    frame.head(reading)
    clicked: dict[str, Any] = {}
    if reading.value is not None:
        entity, size = _entity(), _chosen("size", "5m")
        shown, feed = reading.value, _feed(entity).value or []
        listed = [shown.market, *shown.movers]
        chosen = next((found for found in listed if found.entity == entity), None) or _measured(entity, feed)
        if chosen and chosen not in listed:
            listed.insert(1, chosen)
        rail, main = st.columns([3, 10])
        with rail:
            data = {
                "title": "Entities",
                "note": "that move most",
                "rows": rows.movers(listed),
                "columns": COLUMNS,
            }
            clicked |= panels.show(
                "movers", {**data, "narrow": True, "selected": entity, "empty": ""}, key="rail"
            )
        with main:
            _title(entity, feed, chosen)
            clicked |= _alerts(entity, shown)
            st.html(CHART.format(charts.RANGES[size][1]))
            trends.draw(entity, size, shown.alerts, 220)
            clicked |= _tape(entity, feed, reading.away_since is not None)
    clicked |= frame.foot(reading)
    frame.act(clicked, _go)


def _title(entity: str, feed: Iterable[Headline], mover: Mover | None) -> None:
    measure = ""
    if mover is not None:
        measure = f"{mover.negative} negative in 5 min, usual {rows.usual(mover.usual_negative)}"
        measure += f"; {mover.stories} stories, usual {rows.usual(mover.usual_stories)}"
    name = html.escape(_called(entity, rows.names(feed)))
    st.html(f'<div class="tw"><div class="tw-title-row"><h1>{name}</h1><span>{measure}</span></div></div>')


def _alerts(entity: str, shown: Overview) -> dict[str, Any]:
    """What goes on about this entity; nothing where all is quiet."""
    going = [view for view in shown.alerts if view.active and entity in (MARKET, view.record.entity)]
    opened = str(st.query_params.get("alert", ""))
    return panels.show("alerts", {"rows": rows.alerts(going, opened, limit=2), "open": opened})


def _measured(entity: str, feed: Sequence[Headline]) -> Mover | None:
    last = feed[0].at if feed else 0

    def load(store: Store, now: float) -> Mover:
        return views.measure(store, {entity: last}, now)[0]

    return frame.reads().get(("mover", entity), load).value


def _chosen(name: str, usual: str) -> str:
    """What a filter stands at; a page that is being left has lost its widgets while this still runs."""
    return str(st.session_state.get(name) or usual)


def _tape(entity: str, feed: list[Headline], away: bool) -> dict[str, Any]:
    label, outlet = _chosen("label", ALL), _chosen("outlet", ALL)
    wanted = rows.Filter(
        label="" if label == ALL else label,
        outlet="" if outlet == ALL else outlet,
        text=frame.searched(),
    )
    shown = rows.tape(feed, wanted, SHOWN)
    total = len({headline.story or headline.id for headline in feed})
    note = f"{len(shown)} of {total} stories" + (", newest first" if shown else "")
    empty = "" if shown else (FILTERED.format(f"{total} stories") if feed else EMPTY)
    if away and not feed:
        empty = AWAY
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


def _outlet(name: str) -> str:
    return "All outlets" if name == ALL else name


def _wanted(name: str) -> list[str]:
    """What the URL asks for, so that it can be chosen even while the store does not know it."""
    found = str(st.query_params.get(name, ""))
    return [found[:200]] if found else []


def _entity() -> str:
    """The entity of the URL; the market where it names none."""
    return next(iter(_wanted("entity")), MARKET)


def _choose() -> None:
    frame.put("entity", "" if st.session_state["choice"] == MARKET else str(st.session_state["choice"]))


def _go(entity: str) -> None:
    frame.put("entity", "" if entity == MARKET else entity)
    st.rerun()
