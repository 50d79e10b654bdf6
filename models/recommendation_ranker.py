"""LambdaMART (Burges 2010, by LightGBM) over the candidates' scores and features, from several earlier months, as ONNX.

A ranker that is cross-validated within one month learns that month's demand and looks better than it is: here each
month's features come from what was known before it, and the month that judges is in no training month.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.recommendation_fit import Recipe, fit, histories
from models.recommendation_folds import Fold
from streams.recommending.demand import demand
from streams.recommending.knowledge import Floats, History, Ints
from streams.recommending.rank import Ranker, recommend
from streams.recommending.scores import Shelf, candidates, shelf

MOST_CUSTOMERS = 1500  # of one fold that train the ranker


@dataclass(frozen=True)
class Trees:
    """How the ranker is grown; chosen on the month before the test."""

    rounds: int = 120
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            "objective": "lambdarank",
            "learning_rate": 0.1,
            "num_leaves": 7,
            "min_data_in_leaf": 200,
            "feature_fraction": 0.4,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 20.0,
            "lambdarank_truncation_level": 15,
            "label_gain": [0, 1],
            "num_threads": 1,
            "verbose": -1,
            "seed": 0,
        }
    )


class Prepared(NamedTuple):
    """A fold with everything that does not depend on the ranker."""

    fold: Fold
    shelf: Shelf
    histories: list[History]


def prepare(fold: Fold, recipe: Recipe | None = None) -> Prepared:
    """Learn from what the fold knows, and gather the histories of those it judges."""
    known = fold.known
    knowledge = fit(known, fold.now, recipe)
    now = demand(known.items, known.days, fold.now, len(known.item_names))
    return Prepared(fold, shelf(knowledge, now), histories(known, fold.now, fold.customers))


class Examples(NamedTuple):
    """Features [rows, f] with 0/1 labels; `groups` counts the rows of each customer."""

    features: Floats
    labels: NDArray[np.int32]
    groups: NDArray[np.int32]


def examples(prepared: Prepared, most: int = MOST_CUSTOMERS) -> Examples:
    """The candidates of the fold's customers who got one of theirs: what the ranker learns from."""
    unmet = _unmet(prepared)
    features, labels, groups = [], [], []
    order = np.random.default_rng(0).permutation(len(prepared.histories))[:most]
    for row in np.sort(order):
        history, wanted = prepared.histories[row], prepared.fold.wanted[row]
        found = candidates(
            prepared.shelf, history, _blocked(unmet, history), int(prepared.fold.customers[row])
        )
        right = np.isin(found.items, wanted)
        if right.any():
            features.append(found.features)
            labels.append(right.astype(np.int32))
            groups.append(len(right))
    if not groups:
        raise ValueError(
            "no customer got an item that was a candidate: too little data to learn a ranking from"
        )
    return Examples(np.concatenate(features), np.concatenate(labels), np.array(groups, np.int32))


def grow(months: Sequence[Examples], trees: Trees | None = None) -> lightgbm.Booster:
    """Train on all months together."""
    chosen = trees or Trees()
    data = lightgbm.Dataset(
        np.concatenate([month.features for month in months]),
        np.concatenate([month.labels for month in months]),
        group=np.concatenate([month.groups for month in months]),
    )
    return lightgbm.train(chosen.settings, data, chosen.rounds)


def as_ranker(booster: lightgbm.Booster) -> Ranker:
    """The trees as LightGBM runs them: the reference."""
    return lambda features: np.asarray(booster.predict(features, num_threads=1), np.float32)


def as_onnx(booster: lightgbm.Booster, columns: int) -> bytes:
    """The trees as an ONNX graph: features [c, f] in, one score a row out."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("features", FloatTensorType([None, columns]))]
    model = convert_lightgbm(booster, initial_types=inputs, target_opset=15, zipmap=False)
    return bytes(model.SerializeToString())


def lists(prepared: Prepared, ranker: Ranker, diversity: float, k: int = 10) -> list[Ints]:
    """What each judged customer would be shown."""
    return list(_lists(prepared, ranker, diversity, k))


def _lists(prepared: Prepared, ranker: Ranker, diversity: float, k: int) -> Iterator[Ints]:
    unmet = _unmet(prepared)
    for customer, history in zip(prepared.fold.customers, prepared.histories, strict=True):
        blocked = _blocked(unmet, history)
        yield recommend(
            prepared.shelf, ranker, history, blocked, k, own=int(customer), diversity=diversity
        ).items


def _unmet(prepared: Prepared) -> NDArray[np.bool_]:
    known = prepared.fold.known
    return np.bincount(known.items, minlength=len(known.item_names)) == 0


def _blocked(unmet: NDArray[np.bool_], history: History) -> NDArray[np.bool_]:
    blocked = unmet.copy()
    blocked[history.items] = True
    return blocked
