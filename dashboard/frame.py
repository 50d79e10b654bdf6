"""What every page has: the reads of the process, style, head with the age of the data, foot with the machine's line."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard import machine, palette, panels
from dashboard.reads import Reading, Reads
from streams.settings import read_settings
from streams.state.views import Overview

EVERY = 1.0  # seconds between two updates of a page


@st.cache_resource(show_spinner=False)
def reads() -> Reads:
    """The reads that all viewers of this process share."""
    opened = Reads.open(read_settings())
    gc.collect()
    gc.freeze()  # what is loaded by now stays: later collections need not look at it
    return opened


def theme() -> palette.Theme:
    """The viewer's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def scheme() -> str:
    """The viewer's colours of negative and positive: of the URL, or as chosen before on another page."""
    wanted = str(st.query_params.get("colours") or st.session_state.get("scheme", "safe"))
    return wanted if wanted in palette.SCHEMES else "safe"


def zone() -> str:
    """The name of the viewer's time zone."""
    return st.context.timezone or "local time"


def style() -> None:
    """The style sheet and the script of the panels; outside of live fragments."""
    st.session_state["scheme"] = scheme()
    if scheme() != st.query_params.get("colours", "safe"):
        put("colours", scheme())  # the links between pages drop it
    st.html(f"<style>{palette.variables(theme(), scheme())}{panels.stylesheet()}</style>")
    with st.container(key="deskbox"):
        panels.desk()


def head(reading: Reading[Overview], pipeline: str = "news") -> None:
    """Age of the data of a pipeline, replay label, and what is wrong."""
    panels.show("head", machine.head(reading, time.time(), reads().place, pipeline))


def foot(reading: Reading[Overview]) -> dict[str, Any]:
    """The quiet line; returns what was clicked in it."""
    return panels.show("foot", machine.foot(reading.value, reading.away_since is not None, scheme()))


def act(clicked: dict[str, Any], go: Callable[[str], None]) -> None:
    """Do what a click asked for: another entity, an alert's details, other colours."""
    if entity := clicked.get("go"):
        go(str(entity))
    if "open" in clicked:
        put("alert", str(clicked["open"]))
        st.rerun()
    if colours := clicked.get("colours"):
        st.session_state["scheme"] = str(colours)
        put("colours", "" if colours == "safe" else str(colours))
        st.rerun()


def go(entity: str) -> None:
    """Open the page that an entity belongs to."""
    kind, _, name = entity.partition(":")
    pages, along = st.session_state["pages"], carried()
    if kind == "account":
        st.switch_page(pages["payments"], query_params={"account": name, **along})
    elif kind in ("terminal", "country", "rule"):
        st.switch_page(pages["payments"], query_params={"q": name, **along})
    else:
        st.switch_page(pages["news"], query_params={"entity": entity, **along})


def search(placeholder: str) -> None:
    """The search field of a page. What is typed goes into the URL, and what the URL says into the field, never back."""
    found = panels.show("search", {"value": searched(), "placeholder": placeholder})
    if "search" in found:
        put("q", str(found["search"])[:200])
        st.rerun()


def searched() -> str:
    """What is searched for, by the URL."""
    return str(st.query_params.get("q", ""))[:200]


def carried() -> dict[str, str]:
    """What of the URL goes along to another page."""
    return {"colours": scheme()} if scheme() != "safe" else {}


def put(name: str, value: str) -> None:
    """Set a part of the URL, or take it away where the value is empty."""
    if value:
        st.query_params[name] = value
    elif name in st.query_params:
        del st.query_params[name]
