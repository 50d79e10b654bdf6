"""Ranking figures over the whole catalogue, none sampled (Krichene, Rendle 2020), with intervals over customers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.recommending.knowledge import Ints

K = 10
DRAWS = 1000
Values = NDArray[np.float64]


def ndcg(ranked: Sequence[Ints], wanted: Sequence[Ints], k: int = K) -> Values:
    """Normalised discounted cumulative gain of each customer's list."""
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)
    made = np.zeros(len(ranked))
    for row, (items, right) in enumerate(zip(ranked, wanted, strict=True)):
        hits = np.isin(items[:k], right)
        made[row] = (hits * gains[: len(hits)]).sum() / ideal[min(len(right), k) - 1]
    return made


def hits(ranked: Sequence[Ints], wanted: Sequence[Ints], k: int = K) -> Values:
    """Whether each customer's list has a wanted item (hit rate)."""
    pairs = zip(ranked, wanted, strict=True)
    return np.array([float(np.isin(items[:k], right).any()) for items, right in pairs])


def ratio(ours: Values, theirs: Values, draws: int = DRAWS) -> tuple[float, float, float]:
    """Ratio of the means with its 95 % interval: bootstrap over customers, who are the same for both."""
    if not len(ours) or theirs.mean() == 0:
        return float("nan"), float("nan"), float("nan")
    chosen = np.random.default_rng(0).integers(0, len(ours), (draws, len(ours)))
    bottom = theirs[chosen].mean(axis=1)
    drawn = ours[chosen].mean(axis=1)[bottom > 0] / bottom[bottom > 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def interval(values: Values, draws: int = DRAWS) -> tuple[float, float]:
    """The 95 % interval of a mean: bootstrap over customers."""
    if not len(values):
        return float("nan"), float("nan")
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def best(scores: NDArray[np.floating], blocked: NDArray[np.bool_], k: int = K) -> Ints:
    """The k best items that are not blocked, in order."""
    open_ = np.where(blocked, -np.inf, scores)
    top = np.argpartition(-open_, min(k, len(open_)) - 1)[:k]
    top = top[np.isfinite(open_[top])]
    return np.asarray(top[np.argsort(-open_[top], kind="stable")], np.int32)
