"""How fresh the data are and how the machine is, as rows of the panels `head`, `figures` and `foot`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard import palette
from dashboard.reads import Reading
from dashboard.rows import Row, seconds, usual
from streams.state.views import Overview
from streams.state.vitals import Health
from streams.windows.buckets import HOUR

PIPELINES = ("news", "transactions", "alerts")
BEHIND = 5.0  # seconds of work in the queue from which the pipeline is said to catch up


def head(reading: Reading[Overview], now: float, place: str, pipeline: str = "news") -> Row:
    """The age of the data, its state, and what is wrong and what to do about it."""
    shown = reading.value
    state, banner = _state(reading, place, pipeline)
    as_of, title = 0.0, "nothing was read yet"
    if shown is not None:
        beats, headlines = [worker.at for worker in shown.health.of(pipeline)], shown.newest
        headlines = headlines if pipeline == "news" else []
        scored = max((seconds(headline.scored_at) for headline in headlines), default=0.0)
        as_of = min(reading.read_at, max([*beats, scored]))
        title = f"store read {now - reading.read_at:.1f} s ago"
        if beats:
            title += f", {pipeline} worker heard {now - max(beats):.1f} s ago"
        if headlines:
            title += f", newest headline {_ago(now - headlines[0].at / 1000)} old"
    replay = shown.health.replay if shown else None
    label = f"Replay of sample data: {replay.sample}" if replay else None
    return {"now": now, "as_of": as_of, "state": state, "banner": banner, "replay": label, "title": title}


def _state(reading: Reading[Overview], place: str, pipeline: str) -> tuple[str, Row | None]:
    shown = reading.value
    if reading.away_since is not None:
        todo = f"Check that the server at {place} runs (TAPEWATCH_REDIS); the page goes on by itself when it answers."
        what = "The store has not answered"
        return "away", _banner("broken", what, todo, reading.away_since, reading.read_at if shown else None)
    if shown is None:
        return "empty", None
    workers, replay = shown.health.of(pipeline), shown.health.replay
    if replay and replay.paused:
        return "live", _banner("warning", "The replay is paused", replay.paused)
    away = [worker.store_away_since for worker in workers if worker.store_away_since]
    if away:
        return "live", _banner(
            "warning",
            f"A {pipeline} worker cannot reach its store",
            "It waits; nothing is lost.",
            min(away),
        )
    if not workers:
        todo = f"Start one: tapewatch worker {pipeline} (or tapewatch up for everything)."
        return "idle", _banner("warning", f"No {pipeline} worker reports", todo)
    behind, rate = _behind(shown.health, pipeline)
    if behind > BEHIND * max(rate, 1.0):
        return "behind", None
    return ("live" if shown.newest or pipeline != "news" else "empty"), None


def _banner(level: str, what: str, todo: str, since: float | None = None, kept: float | None = None) -> Row:
    return {"level": level, "what": what, "todo": todo, "since": since, "kept": kept}


def figures(
    shown: Overview,
    history: Sequence[tuple[float, float, int]],
    paid: Sequence[tuple[float, float, int]] = (),
) -> list[Row]:
    """The numbers of the overview, each with what it is compared with; payments where there is a worker for them."""
    market, firing = shown.market, [view for view in shown.alerts if view.record.state == "firing"]
    worst = any(view.severity == "critical" for view in firing)
    others = sum(view.active for view in shown.alerts) - len(firing)
    recent = (shown.read_at * 1000) - 3 * HOUR
    resolved = sum(not view.active and view.at >= recent for view in shown.alerts)
    share = 100 * market.negative / market.stories if market.stories else None
    expected = 100 * market.usual_negative / market.usual_stories if market.usual_stories else None
    rates, lags = [rate for _, rate, _ in history], [lag for _, _, lag in history]
    behind, rate = _behind(shown.health)
    payments = [rate for _, rate, _ in paid]
    found: list[Row] = [
        {
            "title": "Alerts firing",
            "value": len(firing),
            "tone": ("critical" if worst else "warning") if firing else None,
            "note": f"{others} waiting, {resolved} resolved in 3 h"
            if others
            else f"{resolved} resolved in 3 h",
        },
        {
            "title": "Stories, last 5 min",
            "value": market.stories,
            "note": f"usual {usual(market.usual_stories)}",
            "series": market.series,
        },
        {
            "title": "Negative stories, last 5 min",
            "value": share,
            "unit": "%",
            "note": f"{market.negative} of {market.stories}"
            + (f", usual {expected:.0f} %" if expected is not None else ""),
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
    if shown.health.of("transactions"):
        waiting, _ = _behind(shown.health, "transactions")
        found.insert(
            4,
            {
                "title": "Payments, last 5 min",
                "value": payments[-1] if payments else 0.0,
                "decimals": 1,
                "unit": "payments/s",
                "note": f"highest {max(payments, default=0.0):.1f}, {_count(waiting)} waiting",
                "series": thinned(payments),
            },
        )
    return found


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
    workers = ", ".join(f"{len(health.of(name))} {name}" for name in PIPELINES)
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


def _behind(health: Health, pipeline: str = "news") -> tuple[int, float]:
    """Records of a pipeline that wait, and records a second."""
    workers = health.of(pipeline)
    return sum(worker.behind for worker in workers), sum(worker.rate for worker in workers)


def thinned(values: Sequence[float], most: int = 48) -> list[float]:
    """So many values: the largest of each run, the newest run last; zeros before the first."""
    step = max(1, -(-len(values) // most))
    found = [max(values[max(0, end - step) : end]) for end in range(len(values), 0, -step)]
    return [0.0] * (most - len(found)) + found[::-1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
