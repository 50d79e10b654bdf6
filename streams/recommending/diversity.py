"""Maximal marginal relevance (Carbonell, Goldstein 1998): the next item is good and unlike those before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.recommending.knowledge import Floats, Ints, Rows

WEIGHT = 0.1  # of likeness, against relevance scaled to 0..1 over the pool
POOL = 30  # the best items among which a list of ten is chosen


def diversify(items: Ints, scores: Floats, text: Rows, k: int, weight: float = WEIGHT) -> NDArray[np.intp]:
    """The places, in order, of at most k of these items; `scores` need not be in any order or scale."""
    pool = np.argsort(-scores, kind="stable")[: max(k, POOL)]
    if weight <= 0 or len(pool) < 2:
        return np.asarray(pool[:k])
    best, worst = float(scores[pool[0]]), float(scores[pool[-1]])
    relevance = (scores[pool] - worst) / max(best - worst, 1e-9)
    alike = likeness(items[pool], text)
    chosen = [0]
    nearest = alike[0].copy()
    while len(chosen) < min(k, len(pool)):
        marginal = (1 - weight) * relevance - weight * nearest
        marginal[chosen] = -np.inf
        chosen.append(int(marginal.argmax()))
        nearest = np.maximum(nearest, alike[chosen[-1]])
    return np.asarray(pool[chosen])


def likeness(items: Ints, text: Rows) -> Floats:
    """The cosines of the titles of these items, [m, m]."""
    places, which = text.places(items)
    columns, narrow = np.unique(text.columns[places], return_inverse=True)
    dense = np.zeros((len(items), len(columns)), np.float32)
    dense[which, narrow] = text.values[places]
    return np.asarray(dense @ dense.T, np.float32)


def intra_list_diversity(items: Ints, text: Rows) -> float:
    """One minus the mean cosine of the pairs of a list; 1 for fewer than two items."""
    m = len(items)
    if m < 2:
        return 1.0
    alike = likeness(items, text)
    return float(1 - (alike.sum() - np.trace(alike)) / (m * (m - 1)))
