"""Boosted trees as a graph and as a table of leaves."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightgbm", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")

from engines.onnx_cpu import OnnxCpu
from engines.shapley import Explainer
from models import trees

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def ensemble() -> trees.Ensemble:
    """Two small boosters on rounded columns, so that rows lie on thresholds."""
    rng = np.random.default_rng(1)
    rows = np.round(rng.normal(size=(3000, 6)), 1).astype(np.float32)
    label = (rows[:, 0] * rows[:, 1] + rows[:, 2] > 0.5).astype(int)
    return trees.fit(rows, label, None, {"num_leaves": 12, "max_depth": 5}, 20, [1, 2])


def rows() -> np.ndarray:
    """Rows among which many lie on a threshold."""
    return np.round(np.random.default_rng(2).normal(size=(500, 6)), 1).astype(np.float32)


def test_the_graph_falls_into_the_same_leaves(ensemble: trees.Ensemble) -> None:
    """ONNX Runtime gives LightGBM's raw score, on thresholds too."""
    engine = OnnxCpu(trees.graph(ensemble).SerializeToString(), "fp32", 6)
    found = engine.infer({"features": rows()})[:, 0]
    assert np.abs(found - ensemble.score(rows())).max() < 1e-5


def test_reasons_equal_those_of_lightgbm(ensemble: trees.Ensemble) -> None:
    """The contributions are LightGBM's own `pred_contrib`, the base its expected value."""
    explainer = Explainer(trees.leaves(ensemble), 6)
    theirs = np.mean([one.predict(rows(), pred_contrib=True) for one in ensemble.boosters], axis=0)
    ours = np.array([explainer.contributions(row) for row in rows()])
    assert np.abs(ours - theirs[:, :-1]).max() < 1e-9
    assert abs(explainer.base - theirs[0, -1]) < 1e-9


def test_a_threshold_is_rounded_down() -> None:
    """No float32 lies between a threshold and its float32."""
    for value in (0.1, -0.1, 1e-30, 3.0, 16777217.0):
        found = trees.threshold(value)
        assert float(found) <= value < float(np.nextafter(found, np.float32(np.inf)))


def test_columns_that_are_not_used_are_not_split() -> None:
    """A column left out has no part in any reason."""
    x = rows()
    made = trees.fit(x, (x[:, 0] > 0).astype(int), None, {"num_leaves": 4}, 5, [1], used=[1, 2, 3, 4, 5])
    assert 0 not in trees.leaves(made).feature
