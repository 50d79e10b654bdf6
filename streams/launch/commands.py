"""What the short commands do: topics create, trend, alerts, recommend, models list."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from engines.bundle import as_builtins, list_bundles
from streams import topics
from streams.alerts import alerts_list
from streams.pipelines import all_topics
from streams.records import milliseconds
from streams.settings import Settings
from streams.state.keys import MARKET
from streams.state.recommended import recommended
from streams.state.store import Store
from streams.windows.buckets import SIZES
from streams.windows.trend import trend as read_trend

BUCKETS = 36  # that `trend` shows unless told


class WrongUsage(ValueError):
    """An argument cannot be used."""


def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; returns their names. Raises TopicsError."""
    specs = [topics.TopicSpec(name) for name in all_topics(settings)]
    return topics.create_topics(settings.kafka, specs, settings.partitions, settings.replication)


def trend(
    settings: Settings, entity: str, bucket: str, since: str | None, until: str | None
) -> list[dict[str, Any]]:
    """The buckets of an entity (a symbol, with or without `symbol:`) or, without one, of the market."""
    now = int(time.time() * 1000)
    end = _time("--until", until) if until else now
    start = _time("--since", since) if since else end - BUCKETS * SIZES[bucket].width
    if start >= end:
        raise WrongUsage("--since is not before --until")
    if (end - start) // SIZES[bucket].width > 100_000:
        raise WrongUsage("--since and --until span more than 100,000 buckets; take a larger --bucket")
    store = Store(settings.redis, settings.prefix)
    name = entity or MARKET
    stored = name if name == MARKET or ":" in name else f"symbol:{name.upper()}"
    return [{**row, "entity": name} for row in read_trend(store, stored, bucket, start, end, now)]


def alerts(settings: Settings, state: str | None) -> list[dict[str, Any]]:
    """The alerts' latest records, the newest first."""
    found: list[dict[str, Any]] = alerts_list(Store(settings.redis, settings.prefix), state)
    return found


def recommend(settings: Settings, customer: str, k: int, exclude: str) -> list[dict[str, Any]]:
    """The customer's list as served now."""
    left_out = {item.strip() for item in exclude.split(",") if item.strip()}
    return recommended(Store(settings.redis, settings.prefix), customer, k, left_out)


def bundles(settings: Settings, whole: bool = True) -> list[dict[str, Any]]:
    """The bundles in the folder of the settings; without `whole` as a table that fits a terminal of 120 columns."""
    listed = list(list_bundles(settings.bundles))
    if whole:
        return [dict(as_builtins(found)) for found in listed]
    return [
        {
            "bundle": f"{found.task}/{found.version}",
            "active": "yes" if found.active else "",
            "MB": f"{found.bytes / 1e6:.1f}",
            "graphs": " ".join(found.engines),
            "macro F1": _scores(found.figures),
            "problem": found.problem,
        }
        for found in listed
    ]


def _scores(figures: dict[str, float]) -> str:
    """Macro F1 of each data set, by the beginning of its name."""
    named = {name.removesuffix(".macro_f1"): f for name, f in figures.items() if name.endswith(".macro_f1")}
    return " ".join(f"{name.split('/')[-1][:12]} {value:.3f}" for name, value in named.items())


def _time(option: str, text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"{option}: {text!r} is no time like 2026-11-21T09:30:00Z") from None
    return milliseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
