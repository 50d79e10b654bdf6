"""Features of a payment in words, and their values with units. Pure."""

from __future__ import annotations

import re

SPANS = {"h": "h", "d": "d"}
WHAT = {
    "count": "payments",
    "sum": "sum",
    "mean": "mean amount",
    "max": "largest amount",
    "frauds": "known frauds",
    "risk": "share of fraud",
    "unusual_count": "payments far above habit",
    "unusual_share": "share far above habit",
}
NAMES = {
    "amount": "amount",
    "hour": "hour of the day, UTC",
    "night": "at night",
    "weekend": "on a weekend",
    "account_since_last": "since the account's last payment",
    "terminal_since_last": "since the terminal's last payment",
    "account_age": "since the account's first payment",
    "account_mean_before": "account's mean amount, 44 to 14 d ago",
    "amount_to_mean_90d": "amount / account's mean, 90 d",
    "amount_to_mean_before": "amount / account's mean, 44 to 14 d ago",
    "amount_to_usual": "amount / account's usual amount",
    "amount_to_terminal_mean": "amount / terminal's mean, 30 d",
    "terminal_since_seen": "since the account last paid there",
    "new_terminal": "first time at this terminal",
    "new_country": "first time in this country",
    "new_hour": "first time at this hour",
    "base": "base rate",
    "base_rate": "base rate",
    "calibration": "calibration",
    "sequence": "sequence of the last payments",
    "sequence_model": "sequence of the last payments",
}
YES = {"night", "weekend", "new_terminal", "new_country", "new_hour"}
_WINDOW = re.compile(r"(account|terminal)_(\w+?)_(\d+)([hd])")


def feature(name: str) -> str:
    """What a feature is, in a few words; its own name where nobody has written them."""
    if name in NAMES:
        return NAMES[name]
    if (found := _WINDOW.fullmatch(name)) and found[2] in WHAT:
        return f"{found[1]}'s {WHAT[found[2]]}, {found[3]} {SPANS[found[4]]}"
    return name.replace("_", " ")


def value(name: str, found: float | str) -> str:
    """A feature's value with its unit; amounts are in the reference currency."""
    if isinstance(found, str):
        return found
    if name in YES:
        return "yes" if found else "no"
    if "since" in name or name == "account_age":
        return span(found)
    if "share" in name or "risk" in name:
        return f"{100 * found:.0f} %"
    if "_to_" in name:
        return f"\u00d7 {found:.1f}"
    if "_count_" in name or "frauds" in name or name == "hour":
        return f"{found:.0f}"
    if any(word in name for word in ("amount", "sum", "mean", "max")):
        return money(found)
    return f"{found:.3g}"


def money(amount: float) -> str:
    """An amount with two decimals and thin spaces at thousands."""
    return f"{amount:,.2f}".replace(",", "\u202f")


def span(seconds: float) -> str:
    """A span of time in its largest unit."""
    for unit, width in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * width or (seconds >= width and unit != "d"):
            return f"{seconds / width:.0f} {unit}"
    return f"{seconds:.0f} s"
