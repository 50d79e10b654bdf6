"""Boosted trees: trained by LightGBM, served as one ONNX graph, explained by the table of their leaves.

Thresholds become float32 rounded down: for float32 features x <= t says the same as x <= the largest float32 below t,
so the graph falls into the same leaf as LightGBM, always. Features are numbers without gaps; a NaN goes right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engines.shapley import Leaves
from models.train import TrainingError

ML_OPSET = 3


@dataclass(frozen=True)
class Ensemble:
    """Several boosters as one: the mean of their raw scores, tree by tree."""

    boosters: tuple[lightgbm.Booster, ...]
    features: int

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score (log-odds) of each row, by LightGBM."""
        total = np.zeros(len(rows))
        for booster in self.boosters:
            total += booster.predict(rows, raw_score=True, num_threads=1)
        return total / len(self.boosters)

    def trees(self) -> list[tuple[dict[str, Any], float]]:
        """The root of each tree, with the factor on its leaves."""
        roots = []
        for booster in self.boosters:
            for tree in booster.dump_model()["tree_info"]:
                roots.append((tree["tree_structure"], 1 / len(self.boosters)))
        return roots


def fit(
    rows: NDArray[np.float32],
    label: NDArray[Any],
    weight: NDArray[Any] | None,
    parameters: Mapping[str, Any],
    rounds: int,
    seeds: Sequence[int],
    threads: int = 1,
    used: Sequence[int] | None = None,
) -> Ensemble:
    """Boosters of `rounds` trees each, one a seed, for the probability that `label` is 1.

    `used` are the columns that may be split; the others stay in the input, where nothing reads them.
    """
    boosters = []
    if used is not None:
        rows = rows.copy()
        rows[:, np.setdiff1d(np.arange(rows.shape[1]), used)] = 0  # a constant column is never split
    for seed in seeds:
        settings = {
            "objective": "binary",
            "verbose": -1,
            "num_threads": threads,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            **parameters,
        }
        data = lightgbm.Dataset(rows, np.asarray(label, np.float64), weight=weight)
        boosters.append(lightgbm.train(settings, data, rounds))
    return Ensemble(tuple(boosters), rows.shape[1])


def threshold(value: float) -> np.float32:
    """The largest float32 that is not above `value`."""
    rounded = np.float32(value)
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))


def leaves(ensemble: Ensemble) -> Leaves:
    """The table of leaves from which `engines.shapley` explains; raises TrainingError for a split it does not know."""
    found: list[tuple[float, dict[int, tuple[float, float, float]]]] = []
    for root, factor in ensemble.trees():
        _walk(root, factor, {}, found)
    depth = max((len(path) for _, path in found), default=1) or 1
    count = len(found)
    feature = np.full((count, depth), -1, np.int32)
    above = np.full((count, depth), -np.inf, np.float32)
    upto = np.full((count, depth), np.inf, np.float32)
    share = np.ones((count, depth))
    for row, (_, path) in enumerate(found):
        for column, (index, (low, high, part)) in enumerate(sorted(path.items())):
            feature[row, column], share[row, column] = index, part
            above[row, column], upto[row, column] = low, high
    return Leaves(np.array([value for value, _ in found]), feature, above, upto, share)


def _walk(
    node: dict[str, Any],
    factor: float,
    path: dict[int, tuple[float, float, float]],
    found: list[tuple[float, dict[int, tuple[float, float, float]]]],
) -> None:
    if "leaf_value" in node:
        found.append((node["leaf_value"] * factor, path))
        return
    if node["decision_type"] != "<=":
        raise TrainingError(f"a split by {node['decision_type']!r}: only numeric features are known")
    index, edge = int(node["split_feature"]), float(threshold(node["threshold"]))
    low, high, part = path.get(index, (-np.inf, np.inf, 1.0))
    for child, bounds in (("left_child", (low, min(high, edge))), ("right_child", (max(low, edge), high))):
        ratio = _count(node[child]) / _count(node)
        _walk(node[child], factor, {**path, index: (*bounds, part * ratio)}, found)


def _count(node: Mapping[str, Any]) -> float:
    return float(node["leaf_count" if "leaf_value" in node else "internal_count"])


def graph(ensemble: Ensemble) -> onnx.ModelProto:
    """The ensemble as an ONNX graph: `features` float32 [n, features] -> `logits` float32 [n, 1]."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    target: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree, (root, factor) in enumerate(ensemble.trees()):
        waiting, node_id = [(root, 0)], 1
        while waiting:
            node, place = waiting.pop()
            leaf = "leaf_value" in node
            left, right = (0, 0) if leaf else (node_id, node_id + 1)
            edge = 0.0 if leaf else float(threshold(node["threshold"]))
            values = (
                tree,
                place,
                0 if leaf else int(node["split_feature"]),
                edge,
                "LEAF" if leaf else "BRANCH_LEQ",
                left,
                right,
            )
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
            if leaf:
                for name, value in zip(target, (tree, place, 0, node["leaf_value"] * factor), strict=True):
                    target[name].append(value)
            else:
                waiting += [(node["left_child"], left), (node["right_child"], right)]
                node_id += 2
    attributes: dict[str, Any] = {
        "n_targets": 1,
        "post_transform": "NONE",
        **{f"nodes_{name}": values for name, values in columns.items()},
        **{f"target_{name}": values for name, values in target.items()},
    }
    operator = "TreeEnsembleRegressor"
    node = helper.make_node(operator, ["features"], ["logits"], domain="ai.onnx.ml", **attributes)
    made = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", ensemble.features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="tapewatch")
    onnx.checker.check_model(model)
    return model
