"""The rules beside the model: a rulebook over a payment's record and features, with the storm guard.

`rules.yaml` beside this file is what is shipped; TAPEWATCH_RULES names another. `judge` takes the columns of a batch
and says for each payment which rules hit it and what they ask for: `allow` overrules all, `block` overrules `review`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.expressions import Kind
from streams.payments.features import FEATURES
from streams.records import Signal, Transaction, short
from streams.rulebook import Rulebook, Watched
from streams.storm import StormGuard

Action = Literal["", "allow", "review", "block"]
ACTIONS: tuple[Action, ...] = ("", "review", "block", "allow")  # the later wins
SHIPPED = Path(__file__).parent / "rules.yaml"
MOST = 0.25  # the share of the traffic that a rule may hit where it says nothing
REMIND = 30.0  # seconds between two signals about a rule that is suspended
EVIDENCE = 20
RECORD: dict[str, Kind] = {
    "account": "text",
    "terminal": "text",
    "currency": "text",
    "channel": "text",
    "country": "text",
    "customer": "text",
    "paid": "number",  # the amount in the payment's own currency; `amount` is in the reference currency
    "score": "number",
}
COLUMNS: dict[str, Kind] = {**RECORD, **dict.fromkeys(FEATURES, "number")}


class Hits(NamedTuple):
    """The rules that hit one payment, and what the strongest of them asks for."""

    names: tuple[str, ...]
    action: Action


NOTHING = Hits((), "")


class _Storm(NamedTuple):
    share: float
    usual: float
    evidence: tuple[str, ...]
    suspended: bool


class PaymentRules:
    """The rules of one worker."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises RulebookError that names file, line and rule."""
        self._watched = Watched(path or SHIPPED, COLUMNS, set(ACTIONS) - {""}, MOST)
        self._guard = StormGuard()
        self._storms: dict[str, _Storm] = {}  # to be told
        self._told: dict[str, float] = {}

    @property
    def book(self) -> Rulebook:
        """The rules in force."""
        return self._watched.book

    @property
    def suspended(self) -> frozenset[str]:
        """The rules that the storm guard has suspended."""
        return self._guard.suspended

    @property
    def error(self) -> str:
        """Why the last change of the file was refused; empty where it was not."""
        return self._watched.error

    def refresh(self, now: float) -> bool:
        """Read the file again if it has changed; looks at most once a second."""
        return self._watched.refresh(now)

    def judge(
        self, batch: Sequence[Transaction], features: NDArray[Any], scores: NDArray[Any], now: float
    ) -> list[Hits]:
        """What the rules say of each payment; `features` is (payments, FEATURES) in their order."""
        book, count = self.book, len(batch)
        if not book.rules or not count:
            return [NOTHING] * count
        found = book.matches(columns(book.columns, batch, features, scores), count)
        names = [rule.name for rule in book.rules]
        totals = found.sum(axis=1).tolist()
        guarded = {rule.name: rule.storm for rule in book.rules if rule.then != "allow"}
        changes = self._guard.observe(now, count, dict(zip(names, totals, strict=True)), guarded)
        suspended = self._guard.suspended
        for rule in suspended | {change.rule for change in changes}:
            self._note(rule, batch, found[names.index(rule)], rule in suspended, now)
        hits = [NOTHING] * count
        strength = {rule.name: ACTIONS.index(rule.then) for rule in book.rules}
        for row in np.flatnonzero(found.any(axis=0)).tolist():
            named = [names[index] for index in np.flatnonzero(found[:, row]).tolist()]
            acting = [strength[name] for name in named if name not in suspended]
            shown = tuple(f"{name} (suspended)" if name in suspended else name for name in named)
            hits[row] = Hits(shown, ACTIONS[max(acting, default=0)])
        return hits

    def signals(self, record: Transaction) -> Iterator[Signal]:
        """What is to be said about suspended rules: that they are, every half minute, and when they decide again."""
        for rule, storm in self._storms.items():
            entity = f"rule:{rule}"
            yield Signal(
                id=f"{short(record.id)}:decline_storm:{entity}",
                ts=record.ts,
                kind="decline_storm",
                entity=entity,
                value=round(storm.share, 4),
                baseline=round(storm.usual, 4),
                severity="critical" if storm.suspended else "info",
                evidence=list(storm.evidence),
            )
        self._storms.clear()

    def _note(
        self, rule: str, batch: Sequence[Transaction], hit: NDArray[np.bool_], suspended: bool, now: float
    ) -> None:
        if suspended and now - self._told.get(rule, 0.0) < REMIND:
            return
        if suspended:
            self._told[rule] = now
        else:
            self._told.pop(rule, None)
        share, usual = self._guard.shares(rule)
        evidence = tuple(short(batch[index].id) for index in np.flatnonzero(hit)[-EVIDENCE:].tolist())
        self._storms[rule] = _Storm(share, usual, evidence, suspended)


_PLACE = {name: index for index, name in enumerate(FEATURES)}


def columns(
    wanted: Collection[str], batch: Sequence[Transaction], features: NDArray[Any], scores: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Those of COLUMNS that are wanted, of this batch."""
    found: dict[str, NDArray[Any]] = {}
    for name in wanted:
        if name in _PLACE:
            found[name] = np.asarray(features[:, _PLACE[name]], np.float64)
        elif name == "paid":
            found[name] = np.array([record.amount for record in batch], np.float64)
        elif name == "score":
            found[name] = np.asarray(scores, np.float64)
        else:
            found[name] = np.array([getattr(record, name) for record in batch], dtype=object)
    return found
