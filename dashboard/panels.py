"""The panels of `desk/`: small scripts that draw the rows they are given, and say what was clicked.

The whole script is sent once a page (`desk`), a panel itself is a few lines. A panel keeps its nodes and changes what
changed; what a headline says enters the page as text, never as markup.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import streamlit as st

_DESK = Path(__file__).parent / "desk"
_PANELS = ("head", "figures", "alerts", "movers", "tape", "cases", "account", "search", "foot")


def stylesheet() -> str:
    """The rules of all panels; the colours come from `palette.variables`."""
    return (_DESK / "desk.css").read_text(encoding="utf-8")


def desk() -> None:
    """Send what all panels call; once a page, outside of live fragments."""
    _components()["desk"](key="desk")


def show(name: str, data: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """Draw a panel, and return what was done in it since the last run: event -> value."""
    nothing: dict[str, Any] = dict.fromkeys(_EVENTS, _ignore)
    result = _components()[name](
        key=key or name, data=data, **{f"on_{event}_change": _ignore for event in nothing}
    )
    return {event: value for event in nothing if (value := getattr(result, event, None)) is not None}


_EVENTS = ("open", "go", "colours", "case", "verdict", "search")


def _ignore() -> None:
    """The run that a click causes reads what was clicked from the panel's result."""


@functools.cache
def _components() -> dict[str, Any]:
    def text(name: str) -> str:
        return (_DESK / name).read_text(encoding="utf-8")

    register = st.components.v2.component
    script = "".join(text(f"{name}.js") for name in ("dom", "panels", "payments", "search", "keys"))
    made: dict[str, Any] = {"desk": register("tapewatch_desk", js=script, isolate_styles=False)}
    for name in _PANELS:
        script = text("panel.js").replace("NAME", name)
        made[name] = register(f"tapewatch_{name}", js=script, isolate_styles=False)
    return made
