"""The rivals: decaying popularity, EASE by recency, EASE times trend, TF-IDF; tuned on the month before the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from models.recommendation_data import Interactions
from models.recommendation_fit import EASE_ITEMS, ease_weights, matrix
from models.recommendation_folds import Fold
from models.recommendation_metrics import K, best, ndcg
from streams.recommending.catalogue import vocabulary
from streams.recommending.demand import demand
from streams.recommending.knowledge import Ints, text_rows

HALF_LIVES = (30.0, 60.0, 90.0, 150.0)
REGULARISATIONS = (60.0, 150.0, 300.0)
POPULARITY_HALF_LIVES = (7.0, 14.0, 30.0, 60.0)
SPANS = (14.0, 30.0)
CHUNK = 512
Scored = Callable[[Ints], NDArray[np.floating]]  # customers -> scores [customers, items]


@dataclass(frozen=True)
class Tuned:
    """The settings of every rival that did best on one fold."""

    popularity: float
    ease: tuple[float, float]  # half-life, regularisation
    trend: float  # span in days


def tune(fold: Fold) -> Tuned:
    """Each rival's settings by NDCG@10 on a fold; the trend on top of the EASE that was best."""

    def quality(scored: Scored) -> float:
        return float(ndcg(ranked(fold, scored), fold.wanted).mean())

    popular = max(POPULARITY_HALF_LIVES, key=lambda half: quality(popularity(fold, half)))
    pairs = [(half, strength) for half in HALF_LIVES for strength in REGULARISATIONS]
    settings = pairs if len(fold.known.item_names) <= EASE_ITEMS // 2 else [(150.0, 300.0)]
    chosen = max(settings, key=lambda pair: quality(ease(fold, *pair)))
    span = max(SPANS, key=lambda days: quality(ease(fold, *chosen, days)))
    return Tuned(popular, chosen, span)


def compete(fold: Fold, tuned: Tuned) -> Iterator[tuple[str, list[Ints]]]:
    """The ten best items of each customer by each rival."""
    yield "popularity", ranked(fold, popularity(fold, tuned.popularity))
    yield "tfidf", ranked(fold, tfidf(fold))
    if len(fold.known.item_names) <= EASE_ITEMS:
        yield "ease", ranked(fold, ease(fold, *tuned.ease))
        yield "ease_trend", ranked(fold, ease(fold, *tuned.ease, tuned.trend))


def ranked(fold: Fold, scored: Scored, k: int = K) -> list[Ints]:
    """Full ranking: every known item that is new to the customer."""
    once = matrix(fold.known, fold.now, None)
    unmet = np.bincount(fold.known.items, minlength=once.shape[1]) == 0
    made: list[Ints] = []
    for start in range(0, len(fold.customers), CHUNK):
        customers = fold.customers[start : start + CHUNK]
        blocked = (once[customers].toarray() > 0) | unmet
        pairs = zip(scored(customers), blocked, strict=True)
        made.extend(best(scores, block, k) for scores, block in pairs)
    return made


def popularity(fold: Fold, half_life: float) -> Scored:
    """How many interactions an item had, fading."""
    known = fold.known
    fading = 0.5 ** ((fold.now - known.days) / half_life)
    scores = np.bincount(known.items, fading, len(known.item_names))
    return lambda customers: np.broadcast_to(scores, (len(customers), len(scores)))


def ease(fold: Fold, half_life: float, regularisation: float, trend: float | None = None) -> Scored:
    """EASE on interactions weighted by recency; with `trend`, times recent (days) over all-time demand."""
    weighted = matrix(fold.known, fold.now, half_life)
    weights = ease_weights(weighted, regularisation)
    if weights is None:
        raise ValueError(f"EASE is for at most {EASE_ITEMS} items")
    if trend is None:
        return lambda customers: weighted[customers] @ weights
    factor = _trend(fold.known, fold.now, trend)
    return lambda customers: np.maximum(weighted[customers] @ weights, 0) * factor


def tfidf(fold: Fold) -> Scored:
    """The cosine of an item's title with the titles the customer has met."""
    known = fold.known
    text = text_rows(known.titles, *vocabulary(known.titles))
    width = int(text.columns.max(initial=0)) + 1
    shape = (len(known.item_names), width)
    rows = sparse.csr_matrix((text.values, text.columns, text.starts), shape=shape)
    met = matrix(known, fold.now, 60.0)
    return lambda customers: ((met[customers] @ rows) @ rows.T).toarray()


def _trend(known: Interactions, now: float, days: float) -> NDArray[np.floating]:
    seen = demand(known.items, known.days, now, len(known.item_names))
    return (seen.span(days) + 1) / (seen.span(1e6) + 5)


def few_visits(visits: Sequence[int]) -> NDArray[np.bool_]:
    """Which customers came on at most two days."""
    return np.array(visits) <= 2
