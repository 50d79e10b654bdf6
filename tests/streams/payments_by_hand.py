"""The features of payments again, by a look at every earlier payment: slow, and with no code of the fast way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

HOUR, DAY = 3_600_000, 86_400_000
KEPT = 120 * DAY
WINDOWS = {
    "1h": HOUR,
    "1d": DAY,
    "3d": 3 * DAY,
    "7d": 7 * DAY,
    "14d": 14 * DAY,
    "28d": 28 * DAY,
    "30d": 30 * DAY,
}


@dataclass
class Past:
    """What arrived for one key."""

    payments: list[dict[str, Any]] = field(default_factory=list)
    frauds: list[tuple[int, int]] = field(default_factory=list)
    usual: int = 0
    count: int = 0

    @property
    def newest(self) -> int:
        return max((payment["time"] for payment in self.payments), default=0)

    def within(self, after: int, until: int) -> list[dict[str, Any]]:
        low = max(after, self.newest - KEPT)
        return [payment for payment in self.payments if low < payment["time"] <= until]

    def judged(self, after: int, until: int, now: int) -> int:
        low = max(after, self.newest - KEPT)
        return sum(low < time <= until and known <= now for time, known in self.frauds)


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


def features(
    account: Past, terminal: Past, payment: dict[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """The row of a payment by name, and what is to be remembered of it."""
    now, amount = payment["time"], payment["cents"] / 100
    hour = now // HOUR % 24
    found: dict[str, float] = {
        "amount": amount,
        "hour": hour,
        "night": float(hour < 6),
        "weekend": float((now // DAY + 3) % 7 >= 5),
    }
    for name, past in (("account", account), ("terminal", terminal)):
        for window in ("1h", "1d", "7d", "30d"):
            inside = [one["cents"] for one in past.within(now - WINDOWS[window], now)]
            found[f"{name}_count_{window}"] = len(inside)
            found[f"{name}_sum_{window}"] = sum(inside) / 100
            found[f"{name}_mean_{window}"] = _mean(sum(inside) / 100, len(inside))
            found[f"{name}_max_{window}"] = max(inside, default=0) / 100
        latest = max((one["time"] for one in past.within(now - 90 * DAY, now)), default=now - 90 * DAY)
        found[f"{name}_since_last"] = (now - latest) / 1000
    long = account.within(now - 90 * DAY, now)
    before = account.within(now - 44 * DAY, now - 14 * DAY)
    found["account_age"] = (now - min(one["time"] for one in long)) / 1000 if long else 0.0
    found["account_count_90d"] = len(long)
    found["account_mean_90d"] = _mean(sum(one["cents"] for one in long) / 100, len(long))
    found["account_mean_before"] = _mean(sum(one["cents"] for one in before) / 100, len(before))
    last = account.payments[-1]["time"] if account.payments else now
    usual, count = (account.usual, account.count) if now - last <= KEPT else (0, 0)
    for name, usually in (
        ("amount_to_mean_90d", found["account_mean_90d"]),
        ("amount_to_mean_before", found["account_mean_before"]),
        ("amount_to_usual", usual / 100),
        ("amount_to_terminal_mean", found["terminal_mean_30d"]),
    ):
        found[name] = amount / usually if usually > 0 else 0.0
    for window in ("1d", "3d", "7d", "14d"):
        inside_14 = account.within(now - WINDOWS[window], now)
        flagged = [one for one in inside_14 if one["unusual"] and one["time"] > account.newest - 30 * DAY]
        found[f"account_unusual_count_{window}"] = len(flagged)
        found[f"account_unusual_share_{window}"] = _mean(len(flagged), len(inside_14))
    for window in ("3d", "7d", "28d"):
        there = terminal.within(now - WINDOWS[window], now)
        found[f"terminal_unusual_share_{window}"] = _mean(sum(one["above"] for one in there), len(there))
    for window, days in (("3d", 3), ("14d", 14), ("28d", 28), ("60d", 60)):
        low, high = now - (7 + days) * DAY, now - 7 * DAY
        frauds = terminal.judged(low, high, now)
        found[f"terminal_frauds_{window}"] = frauds
        found[f"terminal_risk_{window}"] = frauds / max(frauds, len(terminal.within(low, high)), 1)
    for window, days in (("7d", 7), ("30d", 30), ("60d", 60)):
        found[f"account_frauds_{window}"] = account.judged(now - (7 + days) * DAY, now - 7 * DAY, now)
    found |= _run(terminal, now)
    flagged = [
        one
        for one in account.within(now - 14 * DAY, now)
        if one["unusual"] and one["time"] > account.newest - 30 * DAY
    ]
    newest_flagged = max((one["time"] for one in flagged), default=now - 90 * DAY)
    found["account_since_unusual"] = (now - newest_flagged) / 1000
    known = [one for one in account.payments if one["time"] > max(now - 90 * DAY, account.newest - KEPT)]
    there_before = [one["time"] for one in known if one["terminal"] == payment["terminal"]]
    found["terminal_since_seen"] = (max(0, now - max(there_before)) if there_before else 90 * DAY) / 1000
    found["new_terminal"] = float(not there_before)
    found["new_country"] = float(
        bool(payment["country"]) and payment["country"] not in {one["country"] for one in known}
    )
    found["new_hour"] = float(hour // 3 not in {one["time"] // HOUR % 24 // 3 for one in known})
    reference = found["account_mean_before"] if before else found["account_mean_90d"]
    unusual = bool(long) and amount > 3 * reference
    minute = now // 60_000 % 1440
    step = [
        math.log1p(abs(amount)),
        math.log1p((min(abs(now - last), 90 * DAY) if account.payments else 90 * DAY) / 1000),
        math.sin(math.tau * minute / 1440),
        math.cos(math.tau * minute / 1440),
        math.log((abs(amount) + 1) / (usual / 100 + 1)) if count else 0.0,
        float(unusual),
        found["new_terminal"],
        found["new_country"],
    ]
    above = bool(count) and payment["cents"] > 3 * usual
    return found, payment | {"unusual": unusual, "above": above, "step": step, "usual": (usual, count)}


def take(account: Past, terminal: Past, seen: dict[str, Any]) -> None:
    """Remember a payment."""
    usual, count = seen["usual"]
    count = min(count + 1, 32)
    bounded = max(0, min(seen["cents"], 2**32 - 1 if count == 1 else 3 * max(usual, 100)))
    account.usual, account.count = min(2**32 - 1, (usual * (count - 1) + bounded) // count), count
    account.payments.append(seen)
    terminal.payments.append(seen)


def _run(terminal: Past, now: int) -> dict[str, float]:
    """How the judged payments of a terminal end."""
    known = [time for time, known in terminal.frauds if known <= now]
    judged = sorted(terminal.within(0, now - 7 * DAY), key=lambda one: one["time"])
    frauds: list[dict[str, Any]] = []
    honest = now - 90 * DAY
    for one in reversed(judged):
        if one["time"] not in known or len(frauds) == 64:
            honest = one["time"] if len(frauds) < 64 else honest
            break
        known.remove(one["time"])
        frauds.append(one)
    usual = [one["time"] for one in frauds if not one["above"]]
    times = {
        "since_honest": honest,
        "since_run": min((one["time"] for one in frauds), default=0),
        "since_usual_run": min(usual, default=0),
    }
    return {"terminal_run_count": len(frauds)} | {
        f"terminal_{name}": min(now - time, 90 * DAY) / 1000 for name, time in times.items()
    }
