"""What the alerts pipeline watches: for each kind of signal where its counts are, by which rule, and what it means.

A new kind of alert is a line in WATCHES; a kind whose counts another pipeline keeps (the trends of news) has a watch
of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import ModuleType
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from redis.client import Pipeline as Pipe

from streams import incidents
from streams.incidents import Cause, Headline, Words
from streams.records import Signal, milliseconds
from streams.state.keys import MARKET, Keys
from streams.state.store import Store
from streams.windows import lasting, surge, tallies, trend
from streams.windows.buckets import HOUR, MINUTE, SIZES, slices
from streams.windows.surge import Cleared, Series

STALE = HOUR  # ms; an older signal pages nobody: it is history, for baselines
NAMES = {"terminal": "Terminal", "account": "Account", "country": "Country", "rule": "Rule"}


class Verdict(incidents.Verdict, Protocol):
    """What a rule says of a window, and whether an alert begins."""

    @property
    def fires(self) -> bool:
        """Whether an alert begins."""


class Watch(Protocol):
    """One kind of alert."""

    kind: str
    topic: str  # whose watermark closes the windows
    least: int  # signals in a window below which nobody needs to look
    words: Words

    def counts(self, signal: Signal, now: float) -> bool:
        """Whether this signal can raise an alert."""

    def effect(self, signal: Signal, now: float) -> Any:
        """What alerts.lua counts of it; None where another pipeline has counted."""

    def ask(self, pipe: Pipe, keys: Keys, entity: str, since: int, until: int) -> int:
        """Ask for the counts of a window; the number of replies."""

    def feed(self, keys: Keys, entity: str) -> str:
        """The key of what the alert stands on, JSON by time."""

    def series(
        self, store: Store, entities: Sequence[str], since: int, until: int, now: int
    ) -> dict[str, Series]:
        """The counts by minute."""

    def judge(self, series: Series, time: int, closed_until: int) -> Verdict:
        """Whether the window that ends with this time fires."""

    def clears(self, series: Series, opened: int, closed_until: int) -> Cleared | None:
        """Whether what fired is over."""

    def cause(self, entity: str, feed: Iterable[bytes], since: int, until: int) -> Cause:
        """The entity's name, and what of the feed the alert stands on."""


class Sentiment:
    """Negative stories about an entity, as the news pipeline counts them."""

    kind, topic, least = trend.KIND, "news", surge.LEAST
    words = Words("negative stories", percent=False)

    def counts(self, signal: Signal, now: float) -> bool:
        """Negative, about one entity, and no history."""
        negative = signal.value < 0 or signal.severity != "info"
        return negative and signal.entity != MARKET and _fresh(signal, now)

    def effect(self, signal: Signal, now: float) -> None:
        """Counted already."""

    def ask(self, pipe: Pipe, keys: Keys, entity: str, since: int, until: int) -> int:
        """The negative stories of each minute."""
        size = SIZES["1m"]
        pieces = slices(size, since, until)
        for piece in pieces:
            first, last = max(since, piece), min(until, piece + size.slice)
            fields = [f"{start // 1000}:b" for start in range(first, last, MINUTE)]
            pipe.hmget(keys.trend(entity, size.name, piece), fields)
        return len(pieces)

    def feed(self, keys: Keys, entity: str) -> str:
        """The entity's headlines."""
        return keys.feed(entity)

    def series(
        self, store: Store, entities: Sequence[str], since: int, until: int, now: int
    ) -> dict[str, Series]:
        """The negative stories."""
        found = trend.read(store, entities, "1m", since, until, now)
        return {entity: found[entity].series for entity in entities}

    def judge(self, series: Series, time: int, closed_until: int) -> Verdict:
        """A surge."""
        return surge.judge(series, time, closed_until)

    def clears(self, series: Series, opened: int, closed_until: int) -> Cleared | None:
        """The end of a surge."""
        return surge.clears(series, opened, closed_until)

    def cause(self, entity: str, feed: Iterable[bytes], since: int, until: int) -> Cause:
        """The negative stories."""
        return incidents.cause(entity, feed, since, until)


class Signals:
    """Signals of one kind as alerts.lua counts them, judged by `rule`: a module with `judge` and `clears`."""

    def __init__(self, kind: str, topic: str, rule: ModuleType, least: int, words: Words) -> None:
        self.kind, self.topic, self.least, self.words = kind, topic, least, words
        self._rule = rule

    def counts(self, signal: Signal, now: float) -> bool:
        """Bad news, and no history."""
        return signal.severity != "info" and _fresh(signal, now)

    def effect(self, signal: Signal, now: float) -> Any:
        """Kind, entity, time and the line of the feed; good news counts nowhere."""
        if signal.severity == "info":
            return None
        line = _Line(
            id=signal.evidence[0] if len(signal.evidence) == 1 else signal.id,
            ts=signal.ts,
            title=signal.note,
            source=signal.by,
            label=signal.severity,
            value=signal.value,
            baseline=signal.baseline,
            evidence=signal.evidence if len(signal.evidence) > 1 else [],
        )
        at = min(milliseconds(signal.ts), int(now * 1000))
        return {
            "kind": self.kind,
            "entity": signal.entity,
            "ts": at,
            "line": msgspec.json.encode(line).decode(),
        }

    def ask(self, pipe: Pipe, keys: Keys, entity: str, since: int, until: int) -> int:
        """The signals of each minute."""
        return tallies.ask(pipe, keys, self.kind, entity, since, until)

    def feed(self, keys: Keys, entity: str) -> str:
        """The entity's signals."""
        return keys.flagged(self.kind, entity)

    def series(
        self, store: Store, entities: Sequence[str], since: int, until: int, now: int
    ) -> dict[str, Series]:
        """The signals."""
        return tallies.read(store, self.kind, entities, since, until, now)

    def judge(self, series: Series, time: int, closed_until: int) -> Verdict:
        """By the rule."""
        verdict: Verdict = self._rule.judge(series, time, closed_until)
        return verdict

    def clears(self, series: Series, opened: int, closed_until: int) -> Cleared | None:
        """By the rule."""
        cleared: Cleared | None = self._rule.clears(series, opened, closed_until)
        return cleared

    def cause(self, entity: str, feed: Iterable[bytes], since: int, until: int) -> Cause:
        """The signals of this time; where the alert is about a share, the newest one's value and baseline."""
        kind, _, name = entity.partition(":")
        found, newest = [], None
        for raw in feed:
            try:
                line = _line.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if since <= milliseconds(line.ts) < until:
                newest = line if newest is None or line.ts >= newest.ts else newest
                found += [
                    Headline(id=each, ts=line.ts, title=line.title, source=line.source, label=line.label)
                    for each in line.evidence or [line.id]
                ]
        title = f"{NAMES.get(kind, kind)} {name}" if name else entity
        if not self.words.percent:
            return Cause(title, found)
        return Cause(title, found, newest.value if newest else 0.0, newest.baseline if newest else 0.0)


class _Line(Struct, frozen=True, kw_only=True):
    """A line of a feed of signals."""

    id: str
    ts: datetime
    title: str = ""
    source: str = ""
    label: str = ""
    value: float = 0.0
    baseline: float = 0.0
    evidence: list[str] = []


_line = msgspec.json.Decoder(_Line)

# One table of the kinds of alerts.
WATCHES: dict[str, Watch] = {
    watch.kind: watch
    for watch in (
        Sentiment(),
        Signals("fraud", "transactions", surge, surge.LEAST, Words("suspicious payments", percent=False)),
        Signals("decline_storm", "transactions", lasting, 1, Words("of the payments hit", percent=True)),
    )
}


def _fresh(signal: Signal, now: float) -> bool:
    return signal.ts.timestamp() >= now - STALE / 1000
