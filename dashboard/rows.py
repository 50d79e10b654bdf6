"""What the panels are given: views of the store as plain rows. Pure; times for the page are milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streams.state.views import AlertView, Headline, Mover

Row = dict[str, Any]
EVIDENCE = 20  # headlines shown of an alert's evidence
SOURCES = {"fraud": ("account", "payments"), "decline_storm": ("account", "payments")}  # one, what it counts
HIGH = 3.0  # standard deviations above the usual from which a count is set in bold


@dataclass(frozen=True)
class Filter:
    """Which headlines of a feed are shown; empty: all."""

    label: str = ""
    outlet: str = ""
    text: str = ""

    def keeps(self, headline: Headline) -> bool:
        """Whether this headline is shown: each word of the text in its title, a name or a symbol of it."""
        if self.label and headline.sentiment.label != self.label:
            return False
        if self.outlet and headline.source != self.outlet:
            return False
        names = " ".join(f"{found.symbol} {found.name}" for found in headline.entities)
        haystack = f"{headline.title} {names}".casefold()
        return all(word in haystack for word in self.text.casefold().split())


def alerts(shown: Sequence[AlertView], opened: str = "", limit: int = 6) -> list[Row]:
    """The first alerts, and the opened one wherever it stands; only that one has its detail."""
    kept = [view for place, view in enumerate(shown) if place < limit or view.record.alert == opened]
    return [_alert(view, view.record.alert == opened) for view in kept]


def _alert(view: AlertView, opened: bool) -> Row:
    record, detail = view.record, view.detail
    evidence = sorted(detail.headlines, key=lambda found: found.ts, reverse=True)
    row: Row = {
        "id": record.alert,
        "state": record.state,
        "severity": view.severity,
        "entity": record.entity,
        "name": _alert_name(view),
        "kind": record.kind,
        "measure": _measure(view),
        "at": view.at,
        "lead": evidence[-1].title if evidence else "",  # what began it
        "outlets": view.outlets,
        "sources": SOURCES.get(record.kind, ("outlet", "headlines")),
        "count": max(len(record.evidence), len(detail.headlines)),
    }
    if opened:
        row["detail"] = {
            "headlines": [
                {
                    "at": _ms(found.ts),
                    "title": found.title,
                    "source": found.source,
                    "label": found.label or "neutral",
                }
                for found in evidence[:EVIDENCE]
            ],
            "history": [{"state": step.state, "at": _ms(step.ts)} for step in detail.history],
        }
        row["version"] = record.version
    return row


def _measure(view: AlertView) -> str:
    """The worst five minutes beside what was expected of them."""
    record, detail = view.record, view.detail
    value, expected = detail.value or record.value, detail.expected or record.baseline
    if detail.percent:
        return f"{100 * value:.0f} % {detail.counted}, usual {100 * expected:.1f} %; suspended"
    counted = "negative" if record.kind == "sentiment" else detail.counted
    return f"{value:.0f} {counted} in {detail.window_minutes:g} min, usual {usual(expected)}"


def _alert_name(view: AlertView) -> str:
    symbol = view.record.entity.partition(":")[2] or view.record.entity
    if view.record.kind != "sentiment":
        return view.detail.name or symbol
    name = view.detail.name.removesuffix(f" ({symbol})")
    return f"{symbol} {name}" if name and name != symbol else symbol


def movers(shown: Iterable[Mover], names: Mapping[str, str] | None = None) -> list[Row]:
    """Entities with their counts beside what is usual."""
    return [
        {
            "entity": mover.entity,
            "symbol": mover.entity.partition(":")[2] or "Market",
            "name": (names or {}).get(mover.entity, mover.name if ":" in mover.entity else "all headlines"),
            "stories": mover.stories,
            "usual": mover.usual_stories,
            "negative": mover.negative,
            "usual_negative": mover.usual_negative,
            "high": _high(mover.stories, mover.usual_stories),
            "high_negative": _high(mover.negative, mover.usual_negative),
            "series": mover.series,
            "at": mover.at,
        }
        for mover in shown
    ]


def tape(headlines: Iterable[Headline], wanted: Filter | None = None, limit: int = 100) -> list[Row]:
    """One row a story, by its first headline that is in the feed, with the copies and outlets counted."""
    stories: dict[str, list[Headline]] = {}
    for headline in headlines:
        stories.setdefault(headline.story or headline.id, []).append(headline)
    made = []
    for key, copies in stories.items():
        shown = min(copies, key=lambda headline: (headline.duplicate_of is not None, headline.at))
        if wanted is None or any(wanted.keeps(copy) for copy in copies):
            made.append((shown.at, key, shown, copies))
    made.sort(key=lambda item: (-item[0], item[1]))
    return [_story(key, shown, copies) for _, key, shown, copies in made[:limit]]


def _story(key: str, shown: Headline, copies: Sequence[Headline]) -> Row:
    outlets = sorted({copy.source for copy in copies})
    return {
        "key": key,
        "version": f"{shown.id}:{len(copies)}",
        "at": shown.at,
        "label": shown.sentiment.label,
        "p": max(shown.sentiment.p),
        "title": shown.title,
        "url": shown.url if shown.url.startswith(("https://", "http://")) else "",
        "entities": [
            {"entity": f"symbol:{found.symbol}", "symbol": found.symbol, "name": found.name}
            for found in shown.entities[:3]
        ],
        "source": shown.source,
        "outlets": outlets,
        "copies": len(copies),
    }


def outlets(headlines: Iterable[Headline]) -> list[str]:
    """The distinct outlets of a feed."""
    return sorted({headline.source for headline in headlines})


def names(headlines: Iterable[Headline]) -> dict[str, str]:
    """The names of the entities that these headlines speak of."""
    return {f"symbol:{found.symbol}": found.name for headline in headlines for found in headline.entities}


def usual(value: float) -> str:
    """A usual number with its one decimal; one that rounds to nothing is not nothing."""
    return "<0.1" if 0 < value < 0.05 else f"{value:.1f}"


def _high(value: float, usual: float) -> bool:
    return value - usual >= HIGH * math.sqrt(usual + 1.0)


def _ms(text: str) -> int:
    return int(seconds(text) * 1000)


def seconds(text: str) -> float:
    """Unix seconds of a time on the wire; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
