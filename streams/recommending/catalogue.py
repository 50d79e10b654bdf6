"""The items of the moment: those of the training data and those that came since, which titles and demand recommend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streams.recommending.knowledge import Floats, Ints, Knowledge, Neighbours, Rows, text_rows, words_of

NO_NEIGHBOURS = Neighbours(np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32))
NO_ROWS = Rows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
WORDS = 20_000


def untrained() -> Knowledge:
    """Nothing learned yet: lists then come from titles and demand alone."""
    return Knowledge(
        names=(),
        titles=(),
        words=(),
        idf=np.zeros(0, np.float32),
        text=NO_ROWS,
        ease=NO_NEIGHBOURS,
        steady=NO_NEIGHBOURS,
        cosine=NO_NEIGHBOURS,
        baskets=NO_NEIGHBOURS,
        customer_names=(),
        customers=NO_ROWS,
        met_by=NO_ROWS,
        now=0.0,
    )


def with_items(knowledge: Knowledge, names: Sequence[str], titles: Sequence[str]) -> Knowledge:
    """The same knowledge of `names`, which begin with its own: rows of further items are empty but for their text.

    Where it has no vocabulary, one is made of these titles.
    """
    more = len(names) - len(knowledge.names)
    words, idf = (knowledge.words, knowledge.idf) if knowledge.words else vocabulary(titles)
    return replace(
        knowledge,
        names=tuple(names),
        titles=tuple(titles),
        words=words,
        idf=idf,
        text=text_rows(titles, words, idf),
        ease=padded(knowledge.ease, more),
        steady=padded(knowledge.steady, more),
        cosine=padded(knowledge.cosine, more),
        baskets=padded(knowledge.baskets, more),
        met_by=_longer(knowledge.met_by, more),
    )


def vocabulary(titles: Sequence[str]) -> tuple[tuple[str, ...], Floats]:
    """The words of the titles, the commonest first and at most WORDS, with their inverse document frequency."""
    counts: dict[str, int] = {}
    for title in titles:
        for word in set(words_of(title)):
            counts[word] = counts.get(word, 0) + 1
    words = tuple(sorted(counts, key=lambda word: (-counts[word], word))[:WORDS])
    idf = np.log((len(titles) + 1) / np.array([counts[word] for word in words], np.float32))
    return words, idf.astype(np.float32)


def padded(table: Neighbours, more: int) -> Neighbours:
    """The table with `more` empty rows."""
    width = table.items.shape[1]
    items: Ints = np.zeros((more, width), np.int32)
    weights: Floats = np.zeros((more, width), np.float32)
    return Neighbours(np.concatenate([table.items, items]), np.concatenate([table.weights, weights]))


def _longer(rows: Rows, more: int) -> Rows:
    return rows._replace(starts=np.concatenate([rows.starts, np.full(more, rows.starts[-1])]))
