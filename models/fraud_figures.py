"""Quality figures of fraud scores, without scikit-learn, so that judging needs no extra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[Any]
Scores = NDArray[np.floating[Any]]


def average_precision(label: Labels, score: Scores, weight: Scores | None = None) -> float:
    """The sum over thresholds of recall gained times precision; rows of equal score are one threshold."""
    order = np.argsort(-score, kind="stable")
    heavy = np.ones(len(order)) if weight is None else weight[order]
    hits, seen = np.cumsum(heavy * (label[order] == 1)), np.cumsum(heavy)
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    gained = np.diff(hits[last], prepend=0)
    return float((gained * hits[last] / seen[last]).sum() / hits[-1])


def roc_auc(label: Labels, score: Scores) -> float:
    """The chance that a fraud scores above an honest payment, ties half (Mann and Whitney)."""
    values, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place] if len(values) else np.zeros(0)
    positive = label == 1
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def card_precision(label: Labels, score: Scores, day: Labels, account: Labels, cards: int = 100) -> float:
    """The share of compromised cards among the `cards` highest of each day, mean over days (Handbook, chapter 4).

    A card scores as its highest payment of the day; once found compromised it is not looked at again.
    """
    found: set[int] = set()
    shares = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~np.isin(account, list(found)))
        holders, place = np.unique(account[rows], return_inverse=True)
        best, fraud = np.full(len(holders), -np.inf), np.zeros(len(holders), bool)
        np.maximum.at(best, place, score[rows])
        np.logical_or.at(fraud, place, label[rows] == 1)
        top = np.argsort(-best, kind="stable")[:cards]
        shares.append(float(fraud[top].sum()) / cards)
        found.update(holders[top][fraud[top]].tolist())
    return float(np.mean(shares))


def budget_precision(label: Labels, score: Scores, day: Labels, budget: int) -> float:
    """The share of frauds among the `budget` payments of the highest score each day, mean over days."""
    shares = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        top = rows[np.argsort(-score[rows], kind="stable")[:budget]]
        shares.append(float((label[top] == 1).mean()))
    return float(np.mean(shares))


def brier(label: Labels, score: Scores) -> float:
    """The mean square of probability less truth."""
    return float(np.mean((score - label) ** 2))


def top_gap(label: Labels, score: Scores, share: float = 0.01) -> float:
    """Mean score less fraud rate among the highest `share` of the payments."""
    top = np.argsort(-score, kind="stable")[: max(1, round(share * len(score)))]
    return float(score[top].mean() - label[top].mean())
