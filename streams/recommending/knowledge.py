"""What was learned of items and customers: sparse tables that score every item for one customer.

Training writes it (`models/recommendation_fit.py`), serving reads it from the bundle. Only numpy; never pickled.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_WORD = re.compile(r"[^\W\d_]{2,}")


class History(NamedTuple):
    """What one customer is interested in: distinct items, and how many days ago each was last met."""

    items: Ints
    ages: Floats
    visits: int  # days with an interaction


class Neighbours(NamedTuple):
    """The strongest columns of an item-to-item matrix, [n, k] of items and weights."""

    items: Ints
    weights: Floats

    def scores(self, items: Ints, weights: Floats, n: int) -> Floats:
        """The weighted sum of these items' rows over all n items."""
        spread = self.weights[items] * weights[:, None]
        return np.bincount(self.items[items].ravel(), spread.ravel(), n).astype(np.float32)


class Rows(NamedTuple):
    """A sparse matrix by rows: `columns` and `values` of row r stand from `starts[r]` to `starts[r + 1]`."""

    starts: NDArray[np.int64]
    columns: Ints
    values: Floats

    def places(self, rows: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of the entries of these rows, and for each entry which of the rows it is in."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        which = np.repeat(np.arange(len(rows)), lengths)
        offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.starts[rows][which] + offsets, which

    def times(self, vector: Floats) -> Floats:
        """The product with a vector over the columns."""
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return np.bincount(rows, self.values * vector[self.columns], len(self.starts) - 1).astype(np.float32)


@dataclass(frozen=True)
class Knowledge:
    """Everything trained that is no graph; n items, in the order of `names`.

    `ease` are rows of EASE (Steck 2019) trained on interactions weighted by recency, `steady` the same with slower
    decay and more regularisation, `cosine` item-kNN, `baskets` what is met within one day. `text` is the TF-IDF of
    the titles, unit rows over `words`. `customers` has a row a customer of the training data (values: age in days at
    `now`), `met_by` is its transpose (values: recency weights over the customer's norm).
    """

    names: tuple[str, ...]
    titles: tuple[str, ...]
    words: tuple[str, ...]
    idf: Floats
    text: Rows
    ease: Neighbours
    steady: Neighbours
    cosine: Neighbours
    baskets: Neighbours
    customer_names: tuple[str, ...]
    customers: Rows
    met_by: Rows
    now: float  # days since 1970: nothing after it was seen


TABLES = ("ease", "steady", "cosine", "baskets")
SPARSE = ("text", "customers", "met_by")
TEXTS = ("names", "titles", "words", "customer_names")


def words_of(title: str) -> list[str]:
    """The words of a title, in small letters."""
    return _WORD.findall(title.lower())


def text_rows(titles: Sequence[str], words: Sequence[str], idf: Floats) -> Rows:
    """TF-IDF rows of unit length of these titles over a known vocabulary; unknown words do not count."""
    known = {word: number for number, word in enumerate(words)}
    found = [sorted({known[word] for word in words_of(title) if word in known}) for title in titles]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in found])]).astype(np.int64)
    columns = np.array([column for row in found for column in row], np.int32)
    values = idf[columns] if len(columns) else np.zeros(0, np.float32)
    row_of = np.repeat(np.arange(len(found)), np.diff(starts))
    norms = np.sqrt(np.bincount(row_of, values * values, len(found))) + 1e-9
    return Rows(starts, columns, (values / norms[row_of]).astype(np.float32))


def dump(knowledge: Knowledge) -> bytes:
    """As a compressed .npz without pickles; weights in half precision."""
    arrays: dict[str, NDArray[np.generic]] = {"idf": knowledge.idf, "now": np.array(knowledge.now)}
    for name in TABLES:
        table: Neighbours = getattr(knowledge, name)
        arrays[f"{name}.items"] = table.items
        arrays[f"{name}.weights"] = table.weights.astype(np.float16)
    for name in SPARSE:
        rows: Rows = getattr(knowledge, name)
        arrays[f"{name}.starts"], arrays[f"{name}.columns"] = rows.starts, rows.columns
        arrays[f"{name}.values"] = rows.values.astype(np.float16)
    for name in TEXTS:
        arrays[name] = np.frombuffer(json.dumps(getattr(knowledge, name)).encode(), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def load(content: bytes) -> Knowledge:
    """What `dump` wrote; raises ValueError where it is not that."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            made: dict[str, object] = {"idf": arrays["idf"], "now": float(arrays["now"])}
            for name in TABLES:
                weights = arrays[f"{name}.weights"].astype(np.float32)
                made[name] = Neighbours(arrays[f"{name}.items"], weights)
            for name in SPARSE:
                values = arrays[f"{name}.values"].astype(np.float32)
                made[name] = Rows(arrays[f"{name}.starts"], arrays[f"{name}.columns"], values)
            for name in TEXTS:
                made[name] = tuple(json.loads(arrays[name].tobytes()))
    except (KeyError, OSError, EOFError) as error:
        raise ValueError(f"no knowledge of a recommender: {error}") from None
    return Knowledge(**made)  # type: ignore[arg-type]
