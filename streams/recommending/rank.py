"""From a customer's history to a ranked list: candidates, the learned ranker, diversity."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.recommending.diversity import WEIGHT, diversify
from streams.recommending.knowledge import Floats, History, Ints
from streams.recommending.scores import Candidates, Shelf, candidates

Ranker = Callable[[Floats], Floats]  # features [c, f] -> scores [c], higher is better


class Listed(NamedTuple):
    """A ranked list: items and scores, and the place of each among the candidates."""

    items: Ints
    scores: Floats
    places: NDArray[np.intp]
    candidates: Candidates


def recommend(
    shelf: Shelf,
    ranker: Ranker | None,
    history: History,
    blocked: NDArray[np.bool_],
    k: int = 10,
    *,
    own: int = -1,
    diversity: float = WEIGHT,
) -> Listed:
    """The k best items that are not blocked; those that may not be shown must be blocked by the caller.

    Without a ranker the candidates' blend decides.
    """
    found = candidates(shelf, history, blocked, own)
    if not len(found.items):
        return Listed(found.items, np.zeros(0, np.float32), np.zeros(0, np.intp), found)
    scores = found.blend if ranker is None else ranker(found.features)
    places = diversify(found.items, scores, shelf.knowledge.text, k, diversity)
    return Listed(found.items[places], scores[places], places, found)
