"""What the panels are given: views of the store as plain rows. Pure; times for the page are milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboard import palette
from dashboard.reads import Reading
from streams.state.views import AlertView, Headline, Mover, Overview
from streams.state.vitals import Health

Row = dict[str, Any]
BEHIND = 5.0  # seconds of work in the queue from which the pipeline is said to catch up
EVIDENCE = 12  # headlines shown of an alert's evidence
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


def head(reading: Reading[Overview], now: float, place: str) -> Row:
    """The age of the data, its state, and what is wrong and what to do about it."""
    shown = reading.value
    state, banner = _state(reading, place)
    as_of, title = 0.0, "nothing was read yet"
    if shown is not None:
        beats = [worker.at for worker in shown.health.of("news")]
        scored = max((_seconds(headline.scored_at) for headline in shown.newest), default=0.0)
        as_of = min(reading.read_at, max([*beats, scored]))
        title = f"store read {now - reading.read_at:.1f} s ago"
        if beats:
            title += f", news worker heard {now - max(beats):.1f} s ago"
        if shown.newest:
            title += f", newest headline {_ago(now - shown.newest[0].at / 1000)} old"
    replay = shown.health.replay if shown else None
    label = f"Replay of sample data: {replay.sample}" if replay else None
    return {"now": now, "as_of": as_of, "state": state, "banner": banner, "replay": label, "title": title}


def _state(reading: Reading[Overview], place: str) -> tuple[str, Row | None]:
    shown = reading.value
    if reading.away_since is not None:
        todo = f"Check that the server at {place} runs (TAPEWATCH_REDIS); the page goes on by itself when it answers."
        what = "The store has not answered"
        return "away", _banner("broken", what, todo, reading.away_since, reading.read_at if shown else None)
    if shown is None:
        return "empty", None
    news, replay = shown.health.of("news"), shown.health.replay
    if replay and replay.paused:
        return "live", _banner("warning", "The replay is paused", replay.paused)
    away = [worker.store_away_since for worker in news if worker.store_away_since]
    if away:
        return "live", _banner(
            "warning", "A news worker cannot reach its store", "It waits; nothing is lost.", min(away)
        )
    if not news:
        todo = "Start one: tapewatch worker news (or tapewatch up for everything)."
        return "idle", _banner("warning", "No news worker reports", todo)
    behind, rate = _behind(shown.health)
    if behind > BEHIND * max(rate, 1.0):
        return "behind", None
    return ("live" if shown.newest else "empty"), None


def _banner(level: str, what: str, todo: str, since: float | None = None, kept: float | None = None) -> Row:
    return {"level": level, "what": what, "todo": todo, "since": since, "kept": kept}


def figures(shown: Overview, history: Sequence[tuple[float, float, int]]) -> list[Row]:
    """The five numbers of the overview, each with what it is compared with."""
    market, firing = shown.market, [view for view in shown.alerts if view.record.state == "firing"]
    worst = any(view.record.severity == "critical" for view in firing)
    others = sum(view.active for view in shown.alerts) - len(firing)
    resolved = sum(not view.active for view in shown.alerts)
    share = 100 * market.negative / market.stories if market.stories else None
    usual = 100 * market.usual_negative / market.usual_stories if market.usual_stories else None
    rates, lags = [rate for _, rate, _ in history], [lag for _, _, lag in history]
    behind, rate = _behind(shown.health)
    return [
        {
            "title": "Alerts firing",
            "value": len(firing),
            "tone": ("critical" if worst else "warning") if firing else None,
            "note": f"{others} waiting, {resolved} resolved lately"
            if others
            else f"{resolved} resolved lately",
        },
        {
            "title": "Stories, last 5 min",
            "value": market.stories,
            "note": f"usual {_usual(market.usual_stories)}",
            "series": market.series,
        },
        {
            "title": "Negative stories, last 5 min",
            "value": share,
            "unit": "%",
            "note": f"{market.negative} of {market.stories}"
            + (f", usual {usual:.0f} %" if usual is not None else ""),
        },
        {
            "title": "Throughput, last 5 min",
            "value": rate,
            "decimals": 1,
            "unit": "headlines/s",
            "note": f"highest {max(rates, default=0.0):.1f}, mean {_mean(rates):.1f}",
            "series": thinned(rates),
        },
        {
            "title": "Lag in headlines, last 5 min",
            "value": behind,
            "unit": "waiting",
            "tone": "warning" if behind > BEHIND * max(rate, 1.0) else None,
            "note": f"highest {max(lags, default=0)}",
            "series": thinned([float(lag) for lag in lags]),
        },
    ]


def alerts(shown: Sequence[AlertView], opened: str = "", limit: int = 6) -> list[Row]:
    """The first alerts, and the opened one wherever it stands; only that one has its detail."""
    kept = [view for place, view in enumerate(shown) if place < limit or view.record.alert == opened]
    return [_alert(view, view.record.alert == opened) for view in kept]


def _alert(view: AlertView, opened: bool) -> Row:
    record, detail = view.record, view.detail
    row: Row = {
        "id": record.alert,
        "state": record.state,
        "severity": record.severity,
        "entity": record.entity,
        "name": _alert_name(view),
        "value": record.value,
        "expected": detail.expected or record.baseline,
        "minutes": detail.window_minutes,
        "at": view.at,
        "lead": detail.headlines[0].title if detail.headlines else "",
        "outlets": view.outlets,
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
                for found in detail.headlines[:EVIDENCE]
            ],
            "history": [{"state": step.state, "at": _ms(step.ts)} for step in detail.history],
        }
        row["version"] = record.version
    return row


def _alert_name(view: AlertView) -> str:
    symbol = view.record.entity.partition(":")[2] or view.record.entity
    name = view.detail.title.rpartition(": ")[2]
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


def foot(shown: Overview | None, away: bool, scheme: str) -> Row:
    """The machine in one quiet line, and the choice of colours."""
    items = [] if shown is None else _machine(shown.health, away)
    return {"items": items, "scheme": scheme, "schemes": list(palette.SCHEME_WORDS.items())}


def _machine(health: Health, away: bool) -> list[Row]:
    news = health.of("news")
    behind, rate = _behind(health)
    engines = sorted({worker.engine for worker in news if worker.engine})
    models = sorted({worker.model for worker in news if worker.model})
    batch = max((worker.batch_ms for worker in news), default=0.0)
    used = f"{health.used_bytes / 2**20:.0f} MB"
    full = health.limit_bytes and health.used_bytes > 0.9 * health.limit_bytes
    if health.limit_bytes:
        used += f" of {health.limit_bytes / 2**20:.0f}"
    scored = health.outcomes.get("news", {}).get("scored", 0)
    workers = ", ".join(f"{len(health.of(name))} {name}" for name in ("news", "alerts"))
    missing = not news or not health.of("alerts")
    return [
        _item("lag", _count(behind), "warning" if behind > BEHIND * max(rate, 1.0) else None),
        _item("dead letters", _count(health.dead_letters)),
        _item("engine", ", ".join(engines) or "none", None if news else "warning"),
        _item("model", ", ".join(models) or "none"),
        _item("batch", f"{batch:.0f} ms"),
        _item("scored", _count(scored)),
        _item("workers", workers, "warning" if missing else None),
        _item("store", "away" if away else used, "critical" if away or full else None),
    ]


def _item(name: str, text: str, tone: str | None = None) -> Row:
    return {"name": name, "text": text, "tone": tone}


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _behind(health: Health) -> tuple[int, float]:
    """Headlines that wait, and headlines a second."""
    news = health.of("news")
    return sum(worker.behind for worker in news), sum(worker.rate for worker in news)


def thinned(values: Sequence[float], most: int = 48) -> list[float]:
    """At most so many values: the largest of each run, the newest run last."""
    step = max(1, -(-len(values) // most))
    return [max(values[max(0, end - step) : end]) for end in range(len(values), 0, -step)][::-1]


def outlets(headlines: Iterable[Headline]) -> list[str]:
    """The distinct outlets of a feed."""
    return sorted({headline.source for headline in headlines})


def names(headlines: Iterable[Headline]) -> dict[str, str]:
    """The names of the entities that these headlines speak of."""
    return {f"symbol:{found.symbol}": found.name for headline in headlines for found in headline.entities}


def _high(value: float, usual: float) -> bool:
    return value - usual >= HIGH * math.sqrt(usual + 1.0)


def _usual(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _ms(text: str) -> int:
    return int(_seconds(text) * 1000)


def _seconds(text: str) -> float:
    """Unix seconds of a time on the wire; 0 where it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
