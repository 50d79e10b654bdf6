"""The table of the system: each pipeline, what it reads, what it writes, what it is made by.

A new stream is its own file and one line here. Factories are named, not imported: a command that only lists
topics loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from streams.guard import Pipeline
from streams.records import DERIVED, SOURCES, Record
from streams.settings import Settings
from streams.state.store import Store


class Spec(NamedTuple):
    """One pipeline: source topics -> agent -> derived topics, its bundle and its state."""

    sources: tuple[str, ...]
    derived: tuple[str, ...]
    bundle: str
    state: str
    outbox: bool  # whether changes that only the store knows leave through it
    factory: str  # module:function taking (settings, store, threads)


PIPELINES: dict[str, Spec] = {
    "news": Spec(
        ("news",),
        ("news.scored", "signals"),
        "news",
        "trends, stories, feeds",
        False,
        "streams.news:open_pipeline",
    ),
    "transactions": Spec(
        ("transactions", "labels"),
        ("transactions.scored", "signals"),
        "transactions",
        "logs of accounts and terminals, receipts, matured labels",
        True,
        "streams.transactions:open_pipeline",
    ),
    "recommendations": Spec(
        ("interactions", "items"),
        ("recommendations",),
        "",  # it works untrained, too: no bundle is needed
        "customers, catalogue, demand, lists",
        False,
        "streams.recommendations:open_pipeline",
    ),
    "alerts": Spec(("signals",), ("alerts",), "", "alerts", True, "streams.alerts:open_pipeline"),
}


def open_pipeline(name: str, settings: Settings, store: Store, threads: int) -> Pipeline[Any]:
    """The pipeline of this name, its model loaded and warm."""
    module, _, function = PIPELINES[name].factory.partition(":")
    made: Pipeline[Any] = getattr(import_module(module), function)(settings, store, threads)
    return made


def kinds(name: str, settings: Settings) -> dict[str, type[Record]]:
    """The record type of each source topic of a pipeline, by full topic name."""
    return {settings.topic(source): (SOURCES | DERIVED)[source] for source in PIPELINES[name].sources}


def all_topics(settings: Settings) -> list[str]:
    """Every topic of the contract: sources, derived ones, and a dead-letter topic for each that a pipeline reads."""
    read = {source for spec in PIPELINES.values() for source in spec.sources} | set(SOURCES)
    return [
        settings.topic(name) for name in (*SOURCES, *DERIVED, *(f"{source}.dlq" for source in sorted(read)))
    ]


def names() -> list[str]:
    """The names of all pipelines."""
    return list(PIPELINES)
