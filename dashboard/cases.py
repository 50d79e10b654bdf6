"""What the panels of the review desk are given: receipts and accounts as plain rows. Pure; times are milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dashboard import words
from dashboard.machine import thinned
from dashboard.rows import Row
from streams.payments.desk import Account, Desk, Receipt
from streams.state.views import AlertView

REASONS = 8  # shown of a case; what is left is one line
TIMELINE = 40  # payments of an account that are listed
DRAWN = 400  # payments of an account that are drawn
KINDS = ("fraud", "decline_storm")  # of alerts that this desk is about


@dataclass(frozen=True)
class Filter:
    """Which cases are shown; empty: all."""

    decision: str = ""
    text: str = ""

    def keeps(self, receipt: Receipt) -> bool:
        """Whether this case is shown: each word of the text in its ids, country, channel or rules."""
        if self.decision and receipt.decision != self.decision:
            return False
        record = receipt.record
        names = (record.id, record.account, record.terminal, record.country, record.channel, *receipt.rules)
        haystack = " ".join(names).casefold()
        return all(word in haystack for word in self.text.casefold().split())


@dataclass(frozen=True)
class Said:
    """What this analyst has said about a payment."""

    label: str
    at: int
    error: str = ""


def queue(
    shown: Iterable[Receipt], wanted: Filter, opened: str = "", said: Mapping[str, Said] | None = None
) -> list[Row]:
    """The cases that wait, the newest first; only the opened one has its detail."""
    kept = [receipt for receipt in shown if wanted.keeps(receipt) or receipt.record.id == opened]
    return [
        case(receipt, receipt.record.id == opened, (said or {}).get(receipt.record.id)) for receipt in kept
    ]


def case(receipt: Receipt, opened: bool, said: Said | None = None) -> Row:
    """One row of the queue."""
    record = receipt.record
    row: Row = {
        "id": record.id,
        "decision": receipt.decision,
        "score": receipt.score,
        "amount": f"{words.money(record.amount)} {record.currency}",
        "account": record.account,
        "terminal": record.terminal,
        "place": ", ".join(part for part in (record.country, record.channel) if part),
        "why": _why(receipt),
        "at": receipt.at,
        "said": None if said is None else {"label": said.label, "at": said.at, "error": said.error},
    }
    if opened:
        row["detail"] = _detail(receipt)
    return row


def _why(receipt: Receipt) -> str:
    """What speaks most for fraud, rules first."""
    if receipt.rules:
        return "rule " + ", ".join(receipt.rules)
    found = next((reason for reason in receipt.reasons if reason.contribution > 0), None)
    return f"{words.feature(found.feature)}: {words.value(found.feature, found.value)}" if found else ""


def _detail(receipt: Receipt) -> Row:
    reasons = sorted(receipt.reasons, key=lambda reason: -abs(reason.contribution))
    rest = sum(reason.contribution for reason in reasons[REASONS:])
    listed = [
        {
            "name": words.feature(reason.feature),
            "value": words.value(reason.feature, reason.value),
            "contribution": round(reason.contribution, 2),
        }
        for reason in reasons[:REASONS]
    ]
    if len(reasons) > REASONS:
        listed.append(
            {"name": f"{len(reasons) - REASONS} others", "value": "", "contribution": round(rest, 2)}
        )
    review, block = receipt.thresholds
    named = (("review", review), ("block", block))
    limits = ", ".join(
        f"{name} from {limit:.3f}" if limit <= 1 else f"no {name} by score" for name, limit in named
    )
    return {
        "reasons": listed,
        "rules": list(receipt.rules),
        "limits": limits,
        "model": receipt.model,
        "judged_at": int(receipt.judged_at * 1000),
        "customer": receipt.record.customer,
    }


def account(found: Account | None) -> Row | None:
    """An account's windows, its payments as points, and the last of them as a list."""
    if found is None:
        return None
    cases = {receipt.at: receipt.decision for receipt in found.cases.values()}
    marks = [
        "fraud" if fraud else cases.get(at, "") or ("unusual" if unusual else "")
        for at, fraud, unusual in zip(found.at, found.fraud, found.unusual, strict=True)
    ]
    seen: dict[str, int] = {}
    firsts = []
    for at, country in zip(found.at, found.country, strict=True):
        firsts.append(bool(country) and country not in seen and bool(seen))
        seen.setdefault(country, at)
    total = len(found.at)
    listed = range(total - 1, max(-1, total - 1 - TIMELINE), -1)
    return {
        "name": found.name,
        "total": total,
        "windows": [
            {"span": span, "count": count, "sum": words.money(amount), "largest": words.money(largest)}
            for span, (count, amount, largest) in found.windows.items()
        ],
        "points": [
            [at, amount, mark]
            for at, amount, mark in zip(found.at[-DRAWN:], found.amount[-DRAWN:], marks[-DRAWN:], strict=True)
        ],
        "rows": [
            {
                "key": f"{found.at[index]}:{index}",
                "at": found.at[index],
                "amount": words.money(found.amount[index]),
                "country": found.country[index],
                "first": firsts[index],
                "mark": marks[index],
            }
            for index in listed
        ],
    }


def figures(
    shown: Desk, alerts: Sequence[AlertView], history: Sequence[tuple[float, float, int]]
) -> list[Row]:
    """The five numbers of the review desk, each with what it is compared with."""
    blocks = sum(receipt.decision == "block" for receipt in shown.cases)
    ours = [view for view in alerts if view.record.kind in KINDS]
    firing = [view for view in ours if view.record.state == "firing"]
    worst = any(view.severity == "critical" for view in firing)
    rates = [rate for _, rate, _ in history]
    matured = shown.matured
    recall = f"recall {100 * matured.recall:.0f} %" if matured.recall is not None else "no fraud known yet"
    return [
        {
            "title": "Waiting for review",
            "value": shown.waiting,
            "note": f"{blocks} blocked among the newest {len(shown.cases)}"
            if shown.cases
            else "nothing waits",
        },
        {
            "title": "Fraud alerts firing",
            "value": len(firing),
            "tone": ("critical" if worst else "warning") if firing else None,
            "note": f"{sum(not view.active for view in ours)} resolved",
        },
        {
            "title": "Payments, last 5 min",
            "value": rates[-1] if rates else 0.0,
            "decimals": 1,
            "unit": "payments/s",
            "note": f"highest {max(rates, default=0.0):.1f}",
            "series": thinned(rates),
        },
        {
            "title": "Precision at budget, 7 d",
            "value": None if matured.precision is None else 100 * matured.precision,
            "unit": "%",
            "note": f"{matured.judged} reviews and blocks judged, {recall}",
        },
        {
            "title": "Value saved, 7 d",
            "value": matured.saved,
            "unit": "USD",
            "note": f"{words.money(matured.lost)} lost to approved fraud",
        },
    ]


def said(found: Mapping[str, Said], most: int = 3) -> list[Row]:
    """The newest verdicts of this analyst."""
    newest = sorted(found.items(), key=lambda item: -item[1].at)[:most]
    return [{"id": name, "label": word.label, "at": word.at, "error": word.error} for name, word in newest]
