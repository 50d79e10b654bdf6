"""Why an item is in a list, in a few words that name the item it rests on."""

from __future__ import annotations

import numpy as np

from streams.recommending.knowledge import Floats, History, Ints, Knowledge, Neighbours
from streams.recommending.rank import Listed
from streams.recommending.scores import HALF_LIFE, Shelf

LEAST = 0.05  # of a score relative to the customer's best: below it is no reason
TOGETHER = ("ease×trend", "steady×trend", "cosine×trend")


def reasons(shelf: Shelf, history: History, listed: Listed) -> list[str]:
    """One reason an item of the list, in its order."""
    return [_reason(shelf, history, listed, int(place)) for place in listed.places]


def _reason(shelf: Shelf, history: History, listed: Listed, place: int) -> str:
    found, item = listed.candidates, int(listed.candidates.items[place])
    strength = {
        "together": max(float(found.scores[name][place]) for name in TOGETHER),
        "alike": float(found.scores["alike×trend"][place]),
        "text": float(found.scores["text"][place]),
    }
    together = _strongest(history, item, shelf.knowledge.ease)
    if together is None:
        together = _strongest(history, item, shelf.knowledge.cosine)
    evidence = {"together": together, "text": _likest(shelf.knowledge, history, item)}
    for kind in sorted(strength, key=lambda name: -strength[name]):
        if strength[kind] < LEAST:
            break
        if kind == "alike":
            return "chosen by customers like this one"
        name = evidence[kind]
        if name is not None:
            named = shelf.knowledge.names[name]
            return f"often chosen together with {named}" if kind == "together" else f"like {named}"
    return "new in the catalogue" if shelf.demand.counts[-1][item] == 0 else "asked for by many in these days"


def _strongest(history: History, item: int, table: Neighbours) -> int | None:
    """Of the items met, the one that speaks most for this item."""
    weights = np.where(table.items[history.items] == item, table.weights[history.items], 0).max(
        axis=1, initial=0
    )
    return _largest(history.items, weights * _fading(history))


def _likest(knowledge: Knowledge, history: History, item: int) -> int | None:
    part = slice(knowledge.text.starts[item], knowledge.text.starts[item + 1])
    dense = np.zeros(len(knowledge.words), np.float32)
    dense[knowledge.text.columns[part]] = knowledge.text.values[part]
    places, which = knowledge.text.places(history.items)
    cosines = np.bincount(
        which, knowledge.text.values[places] * dense[knowledge.text.columns[places]], len(history.items)
    )
    return _largest(history.items, cosines.astype(np.float32) * _fading(history))


def _largest(items: Ints, values: Floats) -> int | None:
    best = int(values.argmax()) if len(values) else -1
    return int(items[best]) if best >= 0 and values[best] > 0 else None


def _fading(history: History) -> Floats:
    return (0.5 ** (history.ages / HALF_LIFE)).astype(np.float32)
