"""What the transactions pipeline asks of a model of fraud, and a stand-in without weights for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.payments.features import FEATURES
from streams.records import Reason
from streams.settings import Settings


class Scorer(Protocol):
    """A model of fraud: features and sequences in (see features.py), calibrated probabilities and reasons out."""

    model: str
    engine: str

    def score(self, features: NDArray[Any], sequences: NDArray[Any]) -> NDArray[Any]:
        """Probabilities of fraud [n] for float32 features [n, len(FEATURES)] and sequences [n, STEPS, len(STEP)]."""

    def reasons(self, features: NDArray[Any], sequences: NDArray[Any]) -> list[list[Reason]]:
        """For each row what it adds to the log-odds of its score, the largest share first."""

    def warm(self) -> None:
        """Run once, so that the first batch is no slower than the next."""

    def close(self) -> None:
        """Give the engines back."""


def open_scorer(settings: Settings, threads: int) -> Scorer:
    """The active bundle's model; the stand-in where the engine is `tiny`. Raises BundleError, EngineError."""
    if settings.engine == "tiny":
        return TinyScorer()
    from streams.payments.model import open_model  # a test with `tiny` loads no runtime

    return open_model(settings.bundles, "transactions", settings.engine, threads)


class TinyScorer:
    """A logistic model of three features, written by hand: the shape of the real thing, no judgement."""

    model = "tiny"
    engine = "tiny"
    _weights = (("amount_to_mean_90d", 0.5), ("new_terminal", 0.5), ("account_count_1h", 0.4))
    _bias = -5.0

    def score(self, features: NDArray[Any], sequences: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG002
        logits: NDArray[Any] = self._parts(features).sum(axis=1)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))

    def reasons(self, features: NDArray[Any], sequences: NDArray[Any]) -> list[list[Reason]]:  # noqa: ARG002
        names: Sequence[str] = ["base", *(name for name, _ in self._weights)]
        found = []
        for row, parts in zip(features, self._parts(features), strict=True):
            values = [1.0, *(float(row[FEATURES.index(name)]) for name, _ in self._weights)]
            reasons = [
                Reason(feature=name, value=value, contribution=round(float(part), 6))
                for name, value, part in zip(names, values, parts, strict=True)
            ]
            found.append(sorted(reasons, key=lambda reason: -abs(reason.contribution)))
        return found

    def warm(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to close."""

    def _parts(self, features: NDArray[Any]) -> NDArray[Any]:
        columns = [np.full(len(features), self._bias)]
        for name, weight in self._weights:
            columns.append(weight * np.minimum(features[:, FEATURES.index(name)].astype(np.float64), 20.0))
        return np.stack(columns, axis=1)
