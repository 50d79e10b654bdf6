"""Figures of fraud scores, the Handbook's features, and the ceiling, on small cases."""

from __future__ import annotations

import numpy as np
import pytest

from models import fraud_ceiling
from models.fraud_data import Payments
from models.fraud_figures import average_precision, budget_precision, card_precision, roc_auc, top_gap
from models.fraud_handbook import NAMES, handbook_features
from streams.payments.replay import NEVER, Table

DAY = 86_400_000
START = 17_622 * DAY  # 2018-04-01, a Sunday


def payments(rows: list[tuple[int, int, int, int, int]]) -> Payments:
    """Payments of (time after START in ms, cents, account, terminal, label)."""
    time, cents, account, terminal, label = np.array(rows, np.int64).T.copy()
    known = np.where(label == 1, START + time + 7 * DAY, NEVER)
    return Payments(
        Table(START + time, cents, account, terminal, np.zeros(len(rows), np.int64), known),
        label.astype(np.int8),
    )


def test_ranking_figures_equal_those_of_scikit_learn() -> None:
    """Average precision and AUC, ties and weights included."""
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra `train`")
    rng = np.random.default_rng(5)
    label, weight = (rng.random(400) < 0.1).astype(int), rng.uniform(0.5, 4, 400)
    score = np.round(rng.random(400) + 0.3 * label, 2)
    assert abs(average_precision(label, score) - metrics.average_precision_score(label, score)) < 1e-12
    weighted = metrics.average_precision_score(label, score, sample_weight=weight)
    assert abs(average_precision(label, score, weight) - weighted) < 1e-12
    assert abs(roc_auc(label, score) - metrics.roc_auc_score(label, score)) < 1e-12


def test_a_card_that_was_found_is_not_looked_at_again() -> None:
    """On the second day the found card makes room for the next."""
    day, account = np.array([1, 1, 2, 2, 2]), np.array([7, 8, 7, 8, 9])
    label, score = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.1, 0.9, 0.2, 0.3])
    assert card_precision(label, score, day, account, cards=1) == 1.0
    assert budget_precision(label, score, day, 1) == 1.0
    assert budget_precision(label, score, day, 2) == 0.75


def test_the_top_gap_is_score_less_rate() -> None:
    """Among the highest one in four: mean score 0.8, one of two a fraud."""
    label, score = np.array([1, 0, 0, 0, 0, 0, 0, 0]), np.array([0.9, 0.7, *[0.1] * 6])
    assert abs(top_gap(label, score, 0.25) - 0.3) < 1e-12


def test_handbook_features_equal_rolling_windows_by_hand() -> None:
    """Each of the 15 features is what looking at every payment up to now gives."""
    rng = np.random.default_rng(8)
    count = 300
    times = np.sort(rng.integers(0, 60 * DAY, count))
    rows = [
        (
            int(t),
            int(rng.integers(100, 9000)),
            int(rng.integers(4)),
            int(rng.integers(3)),
            int(rng.random() < 0.2),
        )
        for t in times
    ]
    found = handbook_features(payments(rows))
    for index in range(0, count, 7):
        time, cents, account, terminal, _ = rows[index]
        until = rows[: index + 1]
        hour = time // 3_600_000 % 24
        wanted: list[float] = [cents / 100, float(time // DAY % 7 in (0, 6)), float(hour <= 6)]
        for days in (1, 7, 30):
            mine = [one for one in until if one[2] == account and one[0] > time - days * DAY]
            wanted += [len(mine), sum(one[1] for one in mine) / 100 / len(mine)]
        for days in (1, 7, 30):
            low, high = time - (days + 7) * DAY, time - 7 * DAY
            there = [one for one in until if one[3] == terminal and low < one[0] <= high]
            wanted += [len(there), sum(one[4] for one in there) / max(1, len(there))]
        assert np.allclose(found[index], wanted, rtol=1e-6), (index, NAMES)


def test_the_ceiling_knows_what_cannot_be_known() -> None:
    """Above 220 is sure; a terminal's run of frauds is known a week later, and its first week is not."""
    honest = [(day * DAY, 1000 + day, 1, 1, 0) for day in range(10)]
    manipulated = [(day * DAY, 1000 + day, 1, 1, 1) for day in range(10, 30)]
    table = payments([*honest, *manipulated, (30 * DAY, 23_000, 2, 2, 1)])
    p = fraud_ceiling.judge(table, np.array([0] * 10 + [2] * 20 + [1]))
    assert p[-1] > 0.999
    assert p[12] < 0.05
    assert p[20] > 0.9
