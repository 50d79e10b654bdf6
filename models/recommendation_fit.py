"""What the recommender learns of items and customers: EASE, item-kNN, baskets, titles, customers alike.

EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data") is the inverse of the regularised Gram
matrix; here of interactions weighted by recency. Up to EASE_ITEMS items it is dense and exact, then cut to each
item's strongest weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.linalg import lapack

from models.recommendation_data import Interactions
from streams.recommending.catalogue import vocabulary
from streams.recommending.knowledge import (
    Floats,
    History,
    Ints,
    Knowledge,
    Neighbours,
    Rows,
    text_rows,
)

EASE_ITEMS = 16_000  # 1 GB a matrix; above it, item-kNN stands in
TWO_ITEMS = 6_000  # above it, one EASE model does for both: each takes a minute
DAMPING = 10.0  # of the cosine: pairs seen together once or twice are noise


@dataclass(frozen=True)
class Recipe:
    """Half-lives in days and the L2 regularisation of the two EASE models; how many weights of an item are kept."""

    half_life: float = 60.0
    regularisation: float = 150.0
    steady_half_life: float = 150.0
    steady_regularisation: float = 400.0
    kept: int = 120
    kept_pairs: int = 60


def fit(known: Interactions, now: float, recipe: Recipe | None = None) -> Knowledge:
    """Everything but the ranker, from what was known at `now` (days since 1970)."""
    chosen = recipe or Recipe()
    once = matrix(known, now, None)
    words, idf = vocabulary(known.titles)
    ease = ease_weights(matrix(known, now, chosen.half_life), chosen.regularisation)
    steady = ease
    if len(known.item_names) <= TWO_ITEMS:
        steady = ease_weights(matrix(known, now, chosen.steady_half_life), chosen.steady_regularisation)
    pairs = cosine(once)
    fading = matrix(known, now, chosen.steady_half_life)
    norms = np.sqrt(np.asarray(fading.multiply(fading).sum(axis=1)).ravel()) + 1e-9
    return Knowledge(
        names=known.item_names,
        titles=known.titles,
        words=words,
        idf=idf,
        text=text_rows(known.titles, words, idf),
        ease=strongest(pairs if ease is None else ease, chosen.kept),
        steady=strongest(pairs if steady is None else steady, chosen.kept),
        cosine=strongest(pairs, chosen.kept_pairs),
        baskets=strongest(_baskets(known), chosen.kept_pairs),
        customer_names=known.customer_names,
        customers=_rows(_ages(known, now)),
        met_by=_rows((sparse.diags(1 / norms) @ fading).T.tocsr()),
        now=now,
    )


def matrix(known: Interactions, now: float, half_life: float | None) -> sparse.csr_matrix:
    """Customers x items: 1, or how recent the latest interaction is (0.5 to the power of its age in half-lives)."""
    shape = (len(known.customer_names), len(known.item_names))
    latest = _ages(known, now)
    weights = np.ones(latest.nnz) if half_life is None else 0.5 ** (latest.data / half_life)
    made = sparse.csr_matrix((weights.astype(np.float32), latest.indices, latest.indptr), shape=shape)
    made.eliminate_zeros()
    return made


def ease_weights(weighted: sparse.csr_matrix, regularisation: float) -> Floats | None:
    """The item-to-item weights [n, n] (row: the item that is had), or None with more than EASE_ITEMS items."""
    n = weighted.shape[1]
    if n > EASE_ITEMS:
        return None
    gram = (weighted.T @ weighted).toarray().astype(np.float32, order="F")
    gram[np.diag_indices(n)] += regularisation
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, worse = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or worse:
        raise ValueError(f"the Gram matrix with regularisation {regularisation} is not positive definite")
    lower = np.tril(inverse, -1)
    diagonal = np.diag(inverse).copy()
    weights = -(lower + lower.T) / diagonal[None, :]
    return np.asarray(weights, np.float32)


def cosine(once: sparse.csr_matrix) -> sparse.csr_matrix:
    """Damped cosines of items by their customers, without the diagonal."""
    together = (once.T @ once).tocoo()
    norms = np.sqrt(np.asarray(once.sum(axis=0)).ravel())
    off = together.row != together.col
    row, column, counts = together.row[off], together.col[off], together.data[off]
    values = counts / (norms[row] * norms[column] + DAMPING)
    return sparse.csr_matrix((values.astype(np.float32), (row, column)), shape=together.shape)


def strongest(weights: Floats | sparse.csr_matrix, most: int) -> Neighbours:
    """The `most` largest weights of each row by their size."""
    n = weights.shape[0]
    k = min(most, max(1, n - 1))
    items, values = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
    for row in range(n):
        if isinstance(weights, sparse.csr_matrix):
            part = slice(weights.indptr[row], weights.indptr[row + 1])
            columns, found = weights.indices[part], weights.data[part]
        else:
            columns, found = np.arange(n, dtype=np.int32), weights[row]
        best = np.argpartition(-np.abs(found), k)[:k] if len(found) > k else np.arange(len(found))
        items[row, : len(best)], values[row, : len(best)] = columns[best], found[best]
    return Neighbours(items, values)


def histories(known: Interactions, now: float, customers: Ints) -> list[History]:
    """What each of these customers has met by `now`."""
    ages = _ages(known, now)
    visits = np.unique(np.stack([known.customers, np.floor(known.days).astype(np.int64)]), axis=1)[0]
    days = np.bincount(visits, minlength=len(known.customer_names))
    made = []
    for customer in customers:
        part = slice(ages.indptr[customer], ages.indptr[customer + 1])
        made.append(
            History(
                ages.indices[part].astype(np.int32), ages.data[part].astype(np.float32), int(days[customer])
            )
        )
    return made


def _ages(known: Interactions, now: float) -> sparse.csr_matrix:
    """Customers x items: days since the latest interaction, a moment at least."""
    width = len(known.item_names)
    keys = known.customers.astype(np.int64) * width + known.items
    unique, last = np.unique(keys[::-1], return_index=True)
    days = known.days[::-1][last]
    ages = np.maximum(now - days, 1e-4).astype(np.float32)
    rows, columns = unique // max(1, width), unique % max(1, width)
    made = sparse.csr_matrix((ages, (rows, columns)), shape=(len(known.customer_names), width))
    made.sort_indices()
    return made


def _baskets(known: Interactions) -> sparse.csr_matrix:
    """Items met by one customer on one day, large baskets counting less; damped by how often each is met."""
    whole = np.floor(known.days).astype(np.int64)
    visits = np.unique(np.stack([known.customers, whole, known.items]), axis=1)
    _, basket = np.unique(visits[:2], axis=1, return_inverse=True)
    size = np.bincount(basket)
    shape = (len(size), len(known.item_names))
    made = sparse.csr_matrix(
        ((1 / np.sqrt(size[basket])).astype(np.float32), (basket, visits[2])), shape=shape
    )
    together = (made.T @ made).tocoo()
    norms = np.sqrt(np.asarray(made.sum(axis=0)).ravel() + 1)
    off = together.row != together.col
    values = together.data[off] / (norms[together.row[off]] * norms[together.col[off]])
    return sparse.csr_matrix((values, (together.row[off], together.col[off])), shape=together.shape)


def _rows(made: sparse.csr_matrix) -> Rows:
    columns: NDArray[np.int32] = made.indices.astype(np.int32)
    return Rows(made.indptr.astype(np.int64), columns, made.data.astype(np.float32))
