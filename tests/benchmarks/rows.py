"""Rows of a benchmark as the contract prints them, and percentiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def row(
    name: str,
    values: Sequence[float],
    unit: str = "ratio",
    *,
    value: float | None = None,
    n: int | None = None,
    against: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    """A figure: the median of the rounds' values (or `value`, of all rounds together), its spread, and its bar."""
    found = statistics.median(values) if value is None else value
    bar = at_least if at_least is not None else at_most
    ok = None if bar is None else found >= bar if at_least is not None else found <= bar
    return {
        "figure": name,
        "value": round(found, 4),
        "unit": unit,
        "n": len(values) if n is None else n,
        "spread": [round(min(values), 4), round(max(values), 4)],
        "against": against,
        "bar": bar,
        "ok": ok,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]
