"""Payments: the queue of reviews with reasons and verdicts, beside the account that a payment is of."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from dashboard import cases, frame, panels, rows
from dashboard.cases import Filter, Said
from streams import verdicts
from streams.payments import desk
from streams.payments.desk import Account, Desk, Receipt
from streams.settings import read_settings
from streams.state.store import Store
from streams.state.views import Overview

ALL = "all"
DECISIONS = (ALL, "review", "block")
EMPTY = (
    "Nothing waits for a review. Payments appear here a moment after they were held or refused.\n"
    "Send some: tapewatch send transactions FILE, or start the sample: tapewatch up --replay payments"
)
FILTERED = "None of the {} cases that wait matches. Take a filter back to see more."
AWAY = "The store went away before this was read. It appears when the store is back."
NO_ACCOUNT = "Open a case to see its account here: what it paid, when, where, and what is unusual about it."
UNKNOWN = "No payment of this account is known."


def page() -> None:
    """Draw the page: filters once, what changes each second."""
    frame.style()
    _filters()
    _live()


def _filters() -> None:
    found, choice, _ = st.columns([5, 4, 10], gap="small", vertical_alignment="center")
    with found:
        frame.search("Search id, account, terminal, country, rule")
    choice.segmented_control(
        "Decision",
        DECISIONS,
        default=ALL,
        key="decision",
        bind="query-params",
        label_visibility="collapsed",
        required=True,
    )


@st.fragment(run_every=frame.EVERY)
def _live() -> None:
    reading = frame.reads().overview()
    frame.head(reading, "transactions")
    clicked: dict[str, Any] = {}
    if reading.value is not None:
        shown = frame.reads().get("desk", lambda store, now: desk.desk(store, now)).value
        if shown is not None:
            clicked |= _desk(reading.value, shown, reading.away_since is not None)
    clicked |= frame.foot(reading)
    if "verdict" in clicked:
        _say(clicked["verdict"])
    if "case" in clicked:
        frame.put("case", str(clicked["case"]))
        st.rerun()
    frame.act(clicked, frame.go)


def _desk(overview: Overview, shown: Desk, away: bool) -> dict[str, Any]:
    opened = str(st.query_params.get("case", ""))[:600]
    known = [receipt for receipt in [_opened(opened, shown)] if receipt is not None]
    listed = [*known, *(receipt for receipt in shown.cases if receipt.record.id != opened)]
    listed.sort(key=lambda receipt: -receipt.at)
    wanted = Filter("" if _decision() == ALL else _decision(), frame.searched())
    found = cases.queue(listed, wanted, opened, _said())
    figures = cases.figures(shown, overview.alerts, list(frame.reads().paid))
    panels.show("figures", {"figures": figures})
    clicked = _alerts(overview)
    left, right = st.columns([8, 5])
    with left:
        note = f"{len(found)} of {shown.waiting} that wait, newest first" if found else ""
        empty = "" if found else (FILTERED.format(len(shown.cases)) if shown.cases else EMPTY)
        data = {"title": "Review queue", "note": note, "rows": found, "open": opened}
        data |= {"empty": AWAY if away and not listed else empty, "said": cases.said(_said())}
        clicked |= panels.show("cases", {**data, "query": f"{wanted}"})
    with right:
        clicked |= _account(opened, known, listed)
    return clicked


def _alerts(overview: Overview) -> dict[str, Any]:
    """Bursts of fraud and storms that go on; nothing where all is quiet."""
    going = [view for view in overview.alerts if view.active and view.record.kind in cases.KINDS]
    opened = str(st.query_params.get("alert", ""))
    return panels.show("alerts", {"rows": rows.alerts(going, opened, limit=3), "open": opened})


def _opened(payment: str, shown: Desk) -> Receipt | None:
    """The case of the URL, also when it does not wait any more."""
    waits = next((receipt for receipt in shown.cases if receipt.record.id == payment), None)
    if waits is not None or not payment:
        return waits
    return frame.reads().get(("case", payment), lambda store, now: desk.case(store, payment, now)).value


def _account(opened: str, known: list[Receipt], listed: list[Receipt]) -> dict[str, Any]:
    name = str(st.query_params.get("account", ""))[:600] or next(
        (receipt.record.account for receipt in known if receipt.record.id == opened), ""
    )
    found: Account | None = None
    if name:

        def load(store: Store, now: float) -> Account:
            return desk.account(store, name, now, listed)

        found = frame.reads().get(("account", name), load).value
    row = cases.account(found) if found is not None and found.at else None
    empty = "" if row else (UNKNOWN if name else NO_ACCOUNT)
    pinned = bool(st.query_params.get("account"))
    data = {"title": f"Account {name}" if name else "Account", "account": row, "empty": empty}
    return panels.show("account", {**data, "pinned": pinned, "name": name})


def _say(wanted: dict[str, Any]) -> None:
    """Send what the analyst decided; the case leaves the queue when the pipeline has taken the label in."""
    payment, label = str(wanted["id"]), str(wanted["label"])
    by = str(getattr(st.user, "email", "") or "desk")
    try:
        verdicts.send_verdict(
            read_settings(),
            payment,
            label,
            by=by,
            account=str(wanted.get("account", "")),
            terminal=str(wanted.get("terminal", "")),
        )
        _said()[payment] = Said(label, int(time.time() * 1000))
    except verdicts.NotSent as error:
        _said()[payment] = Said(label, int(time.time() * 1000), str(error))
    st.rerun()


def _said() -> dict[str, Said]:
    found: dict[str, Said] = st.session_state.setdefault("said", {})
    return found


def _decision() -> str:
    return str(st.session_state.get("decision") or ALL)
