"""What an alert says: its record on the topic, the detail that pages show, and how both follow from a verdict.

Pure: verdicts and headlines in, the next state of an incident out. Integer times are ms since 1970.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from streams.records import Alert, Severity, as_time, milliseconds
from streams.windows.buckets import MINUTE, start_of
from streams.windows.surge import WINDOW, Cleared, Expectation

EVIDENCE = 20  # headlines an alert names, the first of its incident
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


class Words(NamedTuple):
    """How an alert of a kind is put: what is counted, and whether its value is a share, shown in per cent."""

    counted: str
    percent: bool


class Headline(Struct, frozen=True, kw_only=True):
    """What an alert stands on: a headline, with its sentiment towards the entity as label, or a payment."""

    id: str
    ts: datetime
    title: str
    source: str
    label: str


class Step(Struct, frozen=True, kw_only=True):
    """One transition that an alert went through."""

    ts: datetime
    state: str
    version: int
    value: float


class Detail(Struct, frozen=True, kw_only=True):
    """What judged an alert; while it fires, value, severity and headlines follow the window without a new record."""

    title: str
    name: str
    headlines: list[Headline]
    outlets: int  # distinct ones among the headlines
    value: float  # the most that a window of the incident held
    expected: float
    severity: Severity  # the worst so far
    opened: datetime
    history: list[Step]
    counted: str = "negative stories"
    percent: bool = False  # whether value and expected are shares
    window_minutes: int = WINDOW // MINUTE


class Incident(Struct, frozen=True, kw_only=True):
    """An alert as the store has it. `partition` is the one of the signals whose owner judges and publishes it."""

    record: Alert
    detail: Detail
    partition: int

    @property
    def opened(self) -> int:
        """The minute that fired; part of the alert's id."""
        return int(self.record.alert.rpartition("-")[2], 36)


class Cause(NamedTuple):
    """What a window's signals and the feed tell beside its numbers."""

    name: str
    headlines: list[Headline]
    value: float | None = None  # instead of what the rule counted
    expected: float | None = None


class Verdict(Protocol):
    """What a rule says of a window: see the rules in `windows/`."""

    @property
    def value(self) -> int:
        """What was counted."""

    @property
    def expected(self) -> Expectation:
        """What was expected."""

    @property
    def critical(self) -> bool:
        """How bad it is."""


def fingerprint(kind: str, entity: str) -> str:
    """The same for all alerts of a kind about an entity; 16 hex digits."""
    return hashlib.blake2b(f"{kind}\0{entity}".encode(), digest_size=8).hexdigest()


def fire(
    kind: str, entity: str, at: int, partition: int, verdict: Verdict, cause: Cause, words: Words
) -> Incident:
    """The first version of an alert. Its id is told by entity and minute, so a replay tells the same one."""
    mark = fingerprint(kind, entity)
    alert = f"{mark}-{_base36(start_of(at, MINUTE))}"
    severity = _severity(verdict)
    time = as_time(at / 1000)
    value = _value(verdict, cause)
    expected = verdict.expected.mean if cause.expected is None else cause.expected
    detail = Detail(
        title="",
        name=cause.name,
        headlines=[],
        outlets=0,
        value=value,
        expected=round(expected, 4 if words.percent else 2),
        severity=severity,
        opened=time,
        history=[Step(ts=time, state="firing", version=1, value=value)],
        counted=words.counted,
        percent=words.percent,
    )
    detail = _with(detail, value, severity, cause)
    record = Alert(
        id=f"{alert}:1",
        ts=time,
        alert=alert,
        kind=kind,
        entity=entity,
        fingerprint=mark,
        state="firing",
        severity=severity,
        value=value,
        baseline=detail.expected,
        evidence=[headline.id for headline in detail.headlines],
        version=1,
    )
    return Incident(record=record, detail=detail, partition=partition)


def follow(incident: Incident, verdict: Verdict, cause: Cause) -> Incident | None:
    """The incident with what came since: no transition, only its detail; None when nothing did."""
    detail = _with(incident.detail, _value(verdict, cause), _severity(verdict), cause)
    return None if detail == incident.detail else replace(incident, detail=detail)


def resolve(incident: Incident, cleared: Cleared) -> Incident:
    """The next version: over, with the worst severity that it had."""
    time = as_time(max(cleared.at, milliseconds(incident.record.ts)) / 1000)
    version = incident.record.version + 1
    step = Step(ts=time, state="resolved", version=version, value=cleared.value)
    detail = replace(incident.detail, history=[*incident.detail.history, step])
    record = replace(
        incident.record,
        id=f"{incident.record.alert}:{version}",
        ts=time,
        state="resolved",
        severity=detail.severity,
        value=cleared.value,
        baseline=round(cleared.expected.mean, 2),
        evidence=[headline.id for headline in detail.headlines],
        version=version,
    )
    return replace(incident, record=record, detail=detail)


class _Entity(Struct, frozen=True):
    symbol: str
    name: str
    label: str


class _Line(Struct, frozen=True):
    """A line of a feed, as the news pipeline writes it."""

    id: str
    ts: datetime
    title: str
    source: str
    entities: list[_Entity]
    duplicate_of: str | None = None


_line = msgspec.json.Decoder(_Line)


def cause(entity: str, feed: Iterable[bytes], since: int, until: int) -> Cause:
    """The negative stories about an entity in this time, and its name; lines that cannot be read are left out."""
    name, found = entity.partition(":")[2] or entity, []
    for raw in feed:
        try:
            line = _line.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        about = next((each for each in line.entities if f"symbol:{each.symbol}" == entity), None)
        if about is None:
            continue
        name = f"{about.name} ({about.symbol})" if about.name != about.symbol else about.symbol
        if about.label == "negative" and line.duplicate_of is None and since <= milliseconds(line.ts) < until:
            found.append(
                Headline(id=line.id, ts=line.ts, title=line.title, source=line.source, label=about.label)
            )
    return Cause(name, found)


def _value(verdict: Verdict, cause: Cause) -> float:
    return verdict.value if cause.value is None else cause.value


def _with(detail: Detail, value: float, severity: Severity, cause: Cause) -> Detail:
    value = max(value, detail.value)
    severity = max(severity, detail.severity, key=_RANK.__getitem__)
    headlines = _first([*detail.headlines, *cause.headlines])
    if detail.percent:
        measure = f"{value:.0%} {detail.counted}, usual {detail.expected:.1%}"
    else:
        measure = f"{value:g} {detail.counted} in {detail.window_minutes} min, usual {detail.expected:.1f}"
    title = f"{detail.name}: {measure}"
    outlets = len({headline.source for headline in headlines})
    return replace(detail, title=title, value=value, severity=severity, headlines=headlines, outlets=outlets)


def _first(headlines: Sequence[Headline]) -> list[Headline]:
    known = {headline.id: headline for headline in headlines}
    return sorted(known.values(), key=lambda headline: (headline.ts, headline.id))[:EVIDENCE]


def _severity(verdict: Verdict) -> Literal["warning", "critical"]:
    return "critical" if verdict.critical else "warning"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
