"""Exact Shapley values of tree ensembles."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest

from engines.engine import EngineError
from engines.shapley import Explainer, Leaves, load

INF = np.inf


def stump_and_pair() -> Leaves:
    """Two trees on three features: one split, and two nested ones."""
    return Leaves(
        value=np.array([-1.0, 2.0, 0.5, -0.5, 3.0]),
        feature=np.array([[0, -1], [0, -1], [1, -1], [1, 2], [1, 2]], np.int32),
        above=np.array([[-INF, -INF], [1, -INF], [-INF, -INF], [0, -INF], [0, 5]], np.float32),
        upto=np.array([[1, INF], [INF, INF], [0, INF], [INF, 5], [INF, INF]], np.float32),
        share=np.array([[0.7, 1], [0.3, 1], [0.4, 1], [0.6, 0.25], [0.6, 0.75]]),
    )


def by_definition(leaves: Leaves, row: np.ndarray, features: int) -> np.ndarray:
    """Shapley values by all subsets: a feature that is not in the subset passes with its share."""

    def value(known: tuple[int, ...]) -> float:
        total = 0.0
        for leaf, score in enumerate(leaves.value):
            for place, index in enumerate(leaves.feature[leaf]):
                if index >= 0:
                    inside = leaves.above[leaf, place] < row[index] <= leaves.upto[leaf, place]
                    score *= float(inside) if index in known else leaves.share[leaf, place]
            total += score
        return total

    found = np.zeros(features)
    for index in range(features):
        others = [other for other in range(features) if other != index]
        for size in range(features):
            weight = factorial(size) * factorial(features - size - 1) / factorial(features)
            for known in combinations(others, size):
                found[index] += weight * (value((*known, index)) - value(known))
    return found


@pytest.mark.parametrize("row", [(0, 1, 9), (2, 1, 5), (2, -1, 6), (1, 0, 0)])
def test_contributions_are_shapley_values_by_their_definition(row: tuple[float, ...]) -> None:
    """The table of patterns gives what the sum over all subsets gives."""
    leaves, x = stump_and_pair(), np.array(row, np.float32)
    found = Explainer(leaves, 3).contributions(x)
    assert np.abs(found - by_definition(leaves, x, 3)).max() < 1e-12


def test_contributions_and_base_add_up_to_the_score() -> None:
    """The parts of a row make its raw score."""
    explainer, x = Explainer(stump_and_pair(), 3), np.array([2, 1, 9], np.float32)
    assert abs(explainer.contributions(x).sum() + explainer.base - 5.0) < 1e-12
    assert explainer.score(x) == 5.0


def test_leaves_come_back_as_they_were_written() -> None:
    """Dumped and loaded leaves are equal, and the same leaves give the same bytes."""
    leaves = stump_and_pair()
    again = load(leaves.dump())
    assert again.dump() == leaves.dump()
    assert (again.share == leaves.share).all()


@pytest.mark.parametrize("content", [b"", b"PK", b"not a table"])
def test_other_bytes_are_no_table_of_leaves(content: bytes) -> None:
    """Bytes that are no table give one line."""
    with pytest.raises(EngineError, match="no table of leaves"):
        load(content)


def test_a_path_too_long_for_the_table_is_refused() -> None:
    """More features on a path than the table of patterns can hold is an error, not a swollen memory."""
    wide = Leaves(
        np.ones(1),
        np.arange(9, dtype=np.int32)[None],
        np.zeros((1, 9), np.float32),
        np.ones((1, 9), np.float32),
        np.full((1, 9), 0.5),
    )
    with pytest.raises(EngineError, match="9 features"):
        Explainer(wide, 9)
