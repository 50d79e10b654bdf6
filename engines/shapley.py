"""Why a tree ensemble said what it said: exact Shapley values of its features, in numpy.

Path-dependent TreeSHAP (Lundberg et al., From Local Explanations to Global Understanding with Explainable AI for Trees,
Nature Machine Intelligence 2, 2020), leaf by leaf. On the path to a leaf of value v, feature j lets the row pass (o_j
1 or 0) and would let a share z_j of the training rows pass. Its value is

    v (o_i - z_i) * integral over t from 0 to 1 of the product over j != i of (o_j t + z_j (1 - t))

because the integral of t^k (1-t)^(m-1-k) is Shapley's weight k! (m-1-k)! / m!. The integrand is a polynomial of degree
m - 1, so Gauss-Legendre quadrature with m / 2 nodes is exact. The same numbers as LightGBM's `pred_contrib`.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.engine import EngineError

LONGEST_PATH = 8  # the table of patterns doubles with each feature
COLUMNS = ("value", "feature", "above", "upto", "share")


@dataclass(frozen=True)
class Leaves:
    """Every leaf of an ensemble with the path to it; L leaves, at most D features on a path.

    value: float64 [L]. feature: int32 [L, D], the index of a feature of the path, -1 beyond its end. A row passes where
    above < x <= upto (float32 [L, D]); share: float64 [L, D], the part of the training rows that pass at its splits.
    """

    value: NDArray[np.float64]
    feature: NDArray[np.int32]
    above: NDArray[np.float32]
    upto: NDArray[np.float32]
    share: NDArray[np.float64]

    def dump(self) -> bytes:
        """As bytes for a bundle (npz, no pickle); the same leaves give the same bytes."""
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in COLUMNS:
                part = io.BytesIO()
                np.lib.format.write_array(part, getattr(self, name), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getvalue(), zipfile.ZIP_DEFLATED)
        return made.getvalue()


def load(content: bytes) -> Leaves:
    """The leaves that `Leaves.dump` wrote; raises EngineError where the bytes are something else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            leaves = Leaves(*(found[name] for name in COLUMNS))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EngineError(f"no table of leaves: {error}") from None
    shapes = {leaves.feature.shape, leaves.above.shape, leaves.upto.shape, leaves.share.shape}
    if len(shapes) != 1 or leaves.feature.ndim != 2 or len(leaves.value) != len(leaves.feature):
        raise EngineError("no table of leaves: its columns do not have one shape")
    return leaves


class Explainer:
    """Contributions of `features` features to the raw score (log-odds) of an ensemble.

    What a leaf contributes depends only on which features of its path let the row pass, one of 2^D patterns: all are
    worked out once, so that a row costs a look into a table for each leaf.
    """

    def __init__(self, leaves: Leaves, features: int) -> None:
        """Raises EngineError where a path is longer than LONGEST_PATH or names a feature that is not there."""
        self._leaves = leaves
        self._features = features
        used = leaves.feature >= 0
        depth = leaves.feature.shape[1]
        if depth > LONGEST_PATH:
            raise EngineError(f"a path of {depth} features; at most {LONGEST_PATH} can be explained")
        if used.any() and int(leaves.feature.max()) >= features:
            raise EngineError(f"the table of leaves names feature {leaves.feature.max()} of {features}")
        self._place = np.where(used, leaves.feature, 0)
        self._unused = ~used
        share = np.where(used, leaves.share, 1.0)
        self._bin = np.where(used, leaves.feature, features).ravel()  # beyond a path's end: a bin of its own
        self._all = (1 << depth) - 1
        self._rows = np.arange(len(leaves.value))
        self._table = _patterns(leaves.value, share, used)
        self.base = float((leaves.value * share.prod(axis=1)).sum())  # the mean over the training rows

    def contributions(self, row: NDArray[Any]) -> NDArray[np.float64]:
        """Of each feature of one row (float32 [features]); with `base` they add up to the raw score."""
        parts = self._table[self._pattern(row), self._rows]
        found = np.bincount(self._bin, weights=parts.ravel(), minlength=self._features + 1)
        return np.asarray(found[:-1], np.float64)

    def score(self, row: NDArray[Any]) -> float:
        """The raw score of one row: the sum of the leaves it falls into."""
        return float(self._leaves.value[self._pattern(row) == self._all].sum())

    def _pattern(self, row: NDArray[Any]) -> NDArray[np.uint8]:
        """For each leaf the features of its path that let the row pass, a bit each."""
        x = row.astype(np.float32)[self._place]
        passes = ((x > self._leaves.above) & (x <= self._leaves.upto)) | self._unused
        return np.packbits(passes, axis=1, bitorder="little")[:, 0]


def _patterns(value: NDArray[Any], share: NDArray[Any], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[2^D, L, D]: what each place of each path contributes under each pattern of passing."""
    depth = share.shape[1]
    nodes, weights = np.polynomial.legendre.leggauss(max(1, (depth + 1) // 2))
    t = ((nodes + 1) / 2)[:, None, None]
    closed = np.where(used, share * (1 - t), 1.0)  # [nodes, L, D]
    opened = np.where(used, share * (1 - t) + t, 1.0)
    table = np.empty((1 << depth, *share.shape))
    for pattern in range(1 << depth):
        passes = (pattern >> np.arange(depth) & 1).astype(bool)
        factors = np.where(passes, opened, closed)
        products = factors.prod(axis=2, keepdims=True) * (weights / 2)[:, None, None]
        table[pattern] = value[:, None] * (passes - share) * (products / factors).sum(axis=0)
    table[:, ~used] = 0.0
    return table
