"""Scores of all items for one customer, the candidates among them, and the ranker's features of these.

Training and serving run this same code. Every score is relative to the customer's best item, or a rank: levels of one
month are no guide to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.recommending.demand import FRESH, Demand, Trends, trends
from streams.recommending.knowledge import Floats, History, Ints, Knowledge, Neighbours

HALF_LIFE = 60.0  # days: how fast interest fades
SOON = 20.0
SIMILAR = 20  # items with like titles
ALIKE = 150  # customers that are near
CANDIDATES = 250
LIKE_ITEMS = 20_000  # each pair is compared
RANKED = ("ease×trend", "steady×trend", "cosine×trend", "alike×trend", "alike.30", "text", "baskets", "ease")
SCORES = (
    *("ease", "steady", "ease×trend", "steady×trend", "cosine", "cosine×trend", "alike", "alike×trend"),
    *("alike.30", "text", "baskets", "baskets×trend"),
)
CUSTOMER = ("items", "visits", "quiet", "known for", "newness", "text.best")


class Candidates(NamedTuple):
    """The items to rank [c], their features [c, f], their blended score and each of SCORES [c]."""

    items: Ints
    features: Floats
    blend: Floats
    scores: dict[str, Floats]


@dataclass(frozen=True)
class Shelf:
    """What is known of all items at one time: what was learned, and what is asked for."""

    knowledge: Knowledge
    similar: Neighbours
    demand: Demand
    trends: Trends


def shelf(knowledge: Knowledge, demand: Demand, similar: Neighbours | None = None) -> Shelf:
    """Everything that does not depend on a customer, worked out once."""
    near = similar or like(knowledge)
    return Shelf(knowledge, near, demand, trends(demand, knowledge, near))


def like(knowledge: Knowledge, most: int = SIMILAR) -> Neighbours:
    """The items with the nearest titles by the cosine of TF-IDF, exact; none above LIKE_ITEMS items."""
    text, n = knowledge.text, len(knowledge.names)
    if n > LIKE_ITEMS or not knowledge.words:
        return Neighbours(np.zeros((n, 1), np.int32), np.zeros((n, 1), np.float32))
    k = min(most, max(1, n - 1))
    items, weights = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
    for item in range(n):
        dense = np.zeros(len(knowledge.words), np.float32)
        part = slice(text.starts[item], text.starts[item + 1])
        dense[text.columns[part]] = text.values[part]
        cosines = text.times(dense)
        cosines[item] = -1
        best = np.argpartition(-cosines, k - 1)[:k]
        items[item], weights[item] = best, np.maximum(cosines[best], 0)
    return Neighbours(items, weights)


def score(shelf: Shelf, history: History, own: int = -1) -> dict[str, Floats]:
    """Each of SCORES for all n items; `own` is the customer's row in the training data, left out of the alike ones."""
    knowledge, n = shelf.knowledge, len(shelf.knowledge.names)
    since = history.ages - history.ages.min(initial=np.inf)  # who has been away for years still has a taste
    weights = (0.5 ** (since / HALF_LIFE)).astype(np.float32)
    slow = (0.5 ** (since / (2.5 * HALF_LIFE))).astype(np.float32)
    ease = knowledge.ease.scores(history.items, weights, n)
    steady = knowledge.steady.scores(history.items, slow, n)
    cosine = knowledge.cosine.scores(history.items, weights, n)
    last = history.items[since <= 1]
    baskets = knowledge.baskets.scores(last, np.ones(len(last), np.float32), n)
    alike, lately = _alike(knowledge, history.items, slow, own)
    factor, month = shelf.trends.factor, shelf.trends.month
    return {
        "ease": ease,
        "steady": steady,
        "ease×trend": np.maximum(ease, 0) * month,
        "steady×trend": np.maximum(steady, 0) * factor,
        "cosine": cosine,
        "cosine×trend": cosine * factor,
        "alike": alike,
        "alike×trend": alike * factor,
        "alike.30": lately,
        "text": _text(knowledge, history.items, weights),
        "baskets": baskets,
        "baskets×trend": baskets * month,
    }


def candidates(
    shelf: Shelf, history: History, blocked: NDArray[np.bool_], own: int = -1, most: int = CANDIDATES
) -> Candidates:
    """The best items for a customer that are not blocked, with the ranker's features."""
    scores = score(shelf, history, own)
    relative = {name: _relative(values, blocked) for name, values in scores.items()}
    popular = shelf.trends.popularity
    blend = (
        relative["ease×trend"]
        + relative["steady×trend"]
        + relative["alike.30"]
        + 0.5 * relative["alike×trend"]
        + 0.3 * relative["cosine×trend"]
        + 0.3 * relative["text"]
        + 0.3 * popular * (1 + shelf.trends.fresh)
    )
    blend = np.where(blocked, -np.inf, blend).astype(np.float32)
    k = min(most, int((~blocked).sum()))
    items = np.argpartition(-blend, k - 1)[:k].astype(np.int32) if k else np.zeros(0, np.int32)
    parts = [relative[name][items] for name in SCORES]
    parts += [_rank(scores[name][items]) for name in RANKED]
    about = np.broadcast_to(_customer(shelf, history, scores["text"]), (k, len(CUSTOMER)))
    features = np.concatenate([np.stack(parts, axis=1), shelf.trends.columns[items], about], axis=1)
    return Candidates(
        items,
        np.nan_to_num(features, copy=False).astype(np.float32),
        blend[items],
        {name: values[items] for name, values in relative.items()},
    )


def feature_names(trends: Trends) -> tuple[str, ...]:
    """The columns of `Candidates.features`."""
    return (*SCORES, *(f"rank of {name}" for name in RANKED), *trends.names, *CUSTOMER)


def _alike(knowledge: Knowledge, items: Ints, weights: Floats, own: int) -> tuple[Floats, Floats]:
    """What customers alike have: by recency, and within the last thirty days of the training data."""
    n, m = len(knowledge.names), len(knowledge.customer_names)
    places, which = knowledge.met_by.places(items)
    near = np.bincount(knowledge.met_by.columns[places], knowledge.met_by.values[places] * weights[which], m)
    if 0 <= own < m:
        near[own] = 0
    k = min(ALIKE, m)
    best = np.argpartition(-near, k - 1)[:k].astype(np.int32) if k else np.zeros(0, np.int32)
    places, which = knowledge.customers.places(best)
    ages, columns, share = (
        knowledge.customers.values[places],
        knowledge.customers.columns[places],
        near[best][which],
    )
    fading = np.bincount(columns, share * 0.5 ** (ages / HALF_LIFE), n)
    lately = np.bincount(columns, share * (ages <= FRESH), n)
    return fading.astype(np.float32), lately.astype(np.float32)


def _text(knowledge: Knowledge, items: Ints, weights: Floats) -> Floats:
    """The cosine of each title with the mean of the titles met, by recency."""
    places, which = knowledge.text.places(items)
    profile = np.bincount(
        knowledge.text.columns[places], knowledge.text.values[places] * weights[which], len(knowledge.words)
    )
    norm = float(np.sqrt((profile * profile).sum()))
    return knowledge.text.times((profile / max(norm, 1e-9)).astype(np.float32))


def _customer(shelf: Shelf, history: History, text: Floats) -> Floats:
    ages = history.ages if len(history.ages) else np.full(1, 1e3, np.float32)
    fading = 0.5 ** (history.ages / SOON)
    fresh = shelf.demand.first[history.items] <= 2 * FRESH
    newness = float((fading * fresh).sum() / max(1e-6, float(fading.sum())))
    return np.array(
        [
            np.log1p(len(history.items)),
            min(history.visits, 30),
            min(float(ages.min()), 365.0),
            min(float(ages.max()), 365.0),
            newness,
            float(text.max(initial=0)),
        ],
        np.float32,
    )


def _relative(values: Floats, blocked: NDArray[np.bool_]) -> Floats:
    largest = float(np.where(blocked, 0, values).max(initial=0))
    return np.asarray(values / max(largest, 1e-9), np.float32)


def _rank(values: Floats) -> Floats:
    """The logarithm of the place among the candidates; 0 is the best."""
    made = np.empty(len(values), np.float32)
    made[np.argsort(-values, kind="stable")] = np.log1p(np.arange(len(values), dtype=np.float32))
    return made
