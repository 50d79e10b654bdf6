"""The fraud model: boosted trees and a sequence model, blended and calibrated by one logistic regression.

Frauds are rare: all of them are kept, and a sample of the honest payments whose weights make up for the rest, so that
scores stay probabilities. The blend is fitted to what the models say of days they were not trained on (the span is cut
into FOLDS blocks of time), then both are trained on all of it. Payments whose label is not ripe are left out by the
caller. An account of fewer than COLD earlier payments has no habits: its blend has an offset and a weight of the trees
of its own, and none of the sequence model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import fraud_sequence, trees
from models.train import TrainingError
from streams.payments.blend import Blend, blend_columns
from streams.payments.features import FEATURES

FOLDS = 3
LEAST_FRAUDS = 30
# The level of prices at a terminal tells which terminal it is: in one week's labels trees learn names by it, not fraud
UNUSED = frozenset(
    f"terminal_{what}_{window}" for what in ("sum", "mean", "max") for window in ("1h", "1d", "7d", "30d")
)
USED = tuple(name for name in FEATURES if name not in UNUSED)
Steps = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # rows [m] -> sequences [m, STEPS, len(STEP)]


@dataclass(frozen=True)
class Recipe:
    """Settings of the training; chosen on weeks before those that judge (models/LOG.md)."""

    trees: dict[str, Any] = field(
        default_factory=lambda: {
            "num_leaves": 15,
            "max_depth": 6,
            "learning_rate": 0.05,
            "min_data_in_leaf": 40,
            "lambda_l2": 5.0,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
        }
    )
    rounds: int = 120
    boosters: int = 2  # their mean serves
    negatives: int = 40_000  # honest payments to train the trees on, at most
    ratio: int = 12  # honest payments for each fraud that the sequence model sees, at most
    epochs: int = 6
    ridge: float = 1.0  # on the blend


@dataclass(frozen=True)
class Fitted:
    """A trained model; `heldout` is what the blend was fitted to, scored out of its block of time."""

    ensemble: trees.Ensemble
    network: fraud_sequence.Network | None
    blend: Blend
    heldout: Heldout

    def parts(
        self, features: NDArray[np.float32], steps: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The log-odds of the trees and of the sequence model, [n] each."""
        other = np.zeros(len(features)) if self.network is None else fraud_sequence.score(self.network, steps)
        return self.ensemble.score(features), other


@dataclass(frozen=True)
class Heldout:
    """Rows (of the caller's arrays) with the probabilities that a model gave which had not seen their time."""

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]
    probability: NDArray[np.float64]


def fit(
    features: NDArray[np.float32],
    steps: Steps | None,
    label: NDArray[Any],
    rows: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Train on the rows [m] (in order of time) of features [n, len(FEATURES)] and label [n].

    Without `steps` there is no sequence model. Raises TrainingError where there is too little to learn from.
    """
    frauds = int(label[rows].sum())
    if frauds < LEAST_FRAUDS or frauds == len(rows):
        raise TrainingError(
            f"{frauds} frauds among {len(rows)} ripe payments: at least {LEAST_FRAUDS} are needed, and others"
        )
    rng = np.random.default_rng(seed)
    kept, weight = sample(label, rows, recipe.negatives, rng)
    block = (np.searchsorted(rows, kept) * FOLDS) // len(rows)
    other = np.zeros(len(kept))
    tree = np.zeros(len(kept))
    for fold in range(FOLDS):
        inside, outside = block == fold, block != fold
        if not inside.any() or label[kept[outside]].sum() < LEAST_FRAUDS // 2:
            raise TrainingError("the frauds lie too close in time to check the model on days it has not seen")
        say(f"block {fold + 1} of {FOLDS}: trained on the others")
        part = _trees(features, label, kept[outside], weight[outside], recipe, [seed])
        tree[inside] = part.score(features[kept[inside]])
        if steps is not None:
            part_network = _network(steps, label, kept[outside], recipe, seed)
            other[inside] = fraud_sequence.score(part_network, steps(kept[inside]))
    blend = fit_blend(
        tree, other if steps is not None else None, features[kept], label[kept], weight, recipe.ridge
    )
    heldout = Heldout(kept, weight, blend.probability(tree, other, features[kept]))
    say("trained on all")
    seeds = [seed * 100 + number for number in range(recipe.boosters)]
    ensemble = _trees(features, label, kept, weight, recipe, seeds)
    network = None if steps is None else _network(steps, label, kept, recipe, seed)
    return Fitted(ensemble, network, blend, heldout)


def sample(
    label: NDArray[Any], rows: NDArray[np.int64], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All frauds and at most so many others, in order of time, with weights that make up for the rest."""
    honest = rows[label[rows] == 0]
    taken = honest if len(honest) <= most else rng.choice(honest, most, replace=False)
    kept = np.sort(np.concatenate([rows[label[rows] == 1], taken]))
    return kept, np.where(label[kept] == 1, 1.0, len(honest) / max(1, len(taken)))


def _trees(
    features: NDArray[np.float32],
    label: NDArray[Any],
    rows: NDArray[np.int64],
    weight: NDArray[np.float64],
    recipe: Recipe,
    seeds: list[int],
) -> trees.Ensemble:
    used = [FEATURES.index(name) for name in USED]
    return trees.fit(features[rows], label[rows], weight, recipe.trees, recipe.rounds, seeds, used=used)


def _network(
    steps: Steps, label: NDArray[Any], rows: NDArray[np.int64], recipe: Recipe, seed: int
) -> fraud_sequence.Network:
    rng = np.random.default_rng(seed)
    kept, weight = sample(label, rows, recipe.ratio * int(label[rows].sum()), rng)
    return fraud_sequence.fit(steps(kept), label[kept], weight / weight.mean(), recipe.epochs, seed)


def fit_blend(
    tree: NDArray[np.float64],
    other: NDArray[np.float64] | None,
    features: NDArray[np.float32],
    label: NDArray[Any],
    weight: NDArray[np.float64],
    ridge: float,
) -> Blend:
    """Logistic regression of the label on the parts' log-odds (Wolpert 1992; Platt 1999), by Newton's method.

    The ridge draws towards the trees alone, so that a cold account's own weights need evidence.
    """
    columns = blend_columns(tree, np.zeros(len(tree)) if other is None else other, features)
    prior = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    penalty = np.full(5, ridge)
    penalty[1:3] = 1e-3  # weight of the sequence model, offset: free
    found = prior.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-(columns @ found)))
        gradient = columns.T @ (weight * (p - label)) + penalty * (found - prior)
        hessian = (columns * (weight * p * (1 - p))[:, None]).T @ columns + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        found -= step
        if np.abs(step).max() < 1e-8:
            break
    return Blend(*found.tolist())
