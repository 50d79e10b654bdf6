"""The fraud model as it serves: a bundle's trees and sequence model, blended, calibrated, and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle, BundleError, active_folder, open_bundle
from engines.parts import open_part
from engines.shapley import Explainer, load
from streams.payments.blend import Blend
from streams.payments.features import FEATURES, STEP, STEPS
from streams.records import Reason

SETTINGS, LEAVES = "settings.json", "leaves.npz"
TOP = 6  # features named as reasons; the rest is one sum
BATCH = 4096  # rows given to an engine at a time


class Serving(msgspec.Struct, frozen=True):
    """What the bundle's settings.json says."""

    features: tuple[str, ...]
    step: tuple[str, ...]
    steps: int
    blend: Blend
    costs: dict[str, float] = {}  # the cost matrix that it was made for, as TAPEWATCH_COSTS names it


def open_model(bundles: Path, task: str, engine: str = "auto", threads: int = 1) -> FraudModel:
    """The active bundle of a task; raises BundleError or EngineError, one line each."""
    return FraudModel(open_bundle(active_folder(bundles, task)), engine, threads)


class FraudModel:
    """Features and sequences in, calibrated probabilities and reasons out."""

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int = 1) -> None:
        self.settings = settings_of(bundle)
        self._explainer = Explainer(load(bundle.read(LEAVES)), len(FEATURES))
        self._trees = open_part(bundle, "trees", "auto", len(FEATURES), threads)  # no other runtime has trees
        self._sequence = open_part(bundle, "sequence", engine, STEPS, threads)
        self.model = bundle.model
        self.engine = self._sequence.name()

    def score(self, features: NDArray[Any], sequences: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of fraud [n] for float32 features [n, len(FEATURES)], sequences [n, STEPS, len(STEP)]."""
        tree, other = self.parts(features, sequences)
        return self.settings.blend.probability(tree, other, features)

    def parts(
        self, features: NDArray[Any], sequences: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The log-odds of the trees and of the sequence model, [n] each."""
        tree, other = np.empty(len(features)), np.empty(len(features))
        for low in range(0, len(features), BATCH):
            part = slice(low, low + BATCH)
            rows = np.ascontiguousarray(features[part], np.float32)
            steps = np.ascontiguousarray(sequences[part], np.float32)
            tree[part] = self._trees.infer({"features": rows})[:, 0]
            other[part] = self._sequence.infer({"steps": steps})[:, 0]
        return tree, other

    def reasons(self, features: NDArray[Any], sequences: NDArray[Any]) -> list[list[Reason]]:
        """For each row what adds up to the log-odds of its score, the largest shares of the features first.

        The features named, `other_features` and `base` (the log-odds of a payment of which nothing is known) add up to
        the trees' log-odds; `sequence_model` is the other model's share; `calibration` is what the blend changes.
        """
        tree, other = self.parts(features, sequences)
        odds, share = self.settings.blend.shares(tree, other, features)
        found = []
        for index, row in enumerate(features):
            parts = self._explainer.contributions(row)
            top = np.argsort(-np.abs(parts), kind="stable")[:TOP]
            top = top[parts[top] != 0]
            rest = float(tree[index] - self._explainer.base - parts[top].sum())
            found.append(
                [
                    *(_reason(FEATURES[i], row[i], parts[i]) for i in top.tolist()),
                    _reason("other_features", 0.0, rest),
                    _reason("base", 0.0, self._explainer.base),
                    _reason("sequence_model", other[index], share[index]),
                    _reason("calibration", 0.0, odds[index] - tree[index] - share[index]),
                ]
            )
        return found

    def warm(self) -> None:
        """Run once, so that the first batch is no slower than the next."""
        self.reasons(np.zeros((8, len(FEATURES)), np.float32), np.zeros((8, STEPS, len(STEP)), np.float32))

    def close(self) -> None:
        """Give the engines back."""
        self._trees.close()
        self._sequence.close()


def _reason(feature: str, value: Any, contribution: Any) -> Reason:
    return Reason(feature=feature, value=float(value), contribution=float(contribution))


def settings_of(bundle: Bundle) -> Serving:
    """The bundle's settings; raises BundleError where it was made for other features than this program computes."""
    try:
        found = msgspec.json.decode(bundle.read(SETTINGS), type=Serving)
    except msgspec.DecodeError as error:
        raise BundleError(f"{bundle.folder / SETTINGS}: {error}") from None
    ours = (FEATURES, STEP, STEPS)
    if (found.features, found.step, found.steps) != ours:
        names = sorted(set(found.features) ^ set(FEATURES)) or ["their order or the sequence's steps"]
        raise BundleError(
            f"{bundle.model} was made for other features ({', '.join(names[:3])}): train it again"
        )
    return found
