"""How the trees' and the sequence model's log-odds become one calibrated probability. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.payments.features import FEATURES

COLD = 5  # payments within 90 days below which an account has no habits
_KNOWN = FEATURES.index("account_count_90d")


class Blend(msgspec.Struct, frozen=True):
    """Weights of a logistic regression. A cold account (below COLD earlier payments) has no sequence to speak of."""

    trees: float
    sequence: float
    offset: float
    cold_offset: float
    cold_trees: float

    def shares(
        self, tree: NDArray[Any], other: NDArray[Any], features: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(the log-odds [n], the sequence model's share of it [n]) of the parts' log-odds [n]."""
        columns = blend_columns(tree, other, features)
        weights = np.array([self.trees, self.sequence, self.offset, self.cold_offset, self.cold_trees])
        return columns @ weights, columns[:, 1] * self.sequence

    def probability(
        self, tree: NDArray[Any], other: NDArray[Any], features: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities of fraud [n]."""
        odds, _ = self.shares(tree, other, features)
        found: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
        return found


def blend_columns(tree: NDArray[Any], other: NDArray[Any], features: NDArray[Any]) -> NDArray[np.float64]:
    """What the logistic regression sees, [n, 5]: trees, sequence where warm, one, cold, trees where cold."""
    cold = (features[:, _KNOWN] < COLD).astype(np.float64)
    return np.stack([tree, other * (1 - cold), np.ones(len(cold)), cold, tree * cold], axis=1).astype(
        np.float64
    )
