"""`tapewatch evaluate transactions`: how good a bundle is on labelled payments. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from models.figures import figure
from models.fraud_data import Payments, known_before, read
from models.fraud_figures import average_precision, brier, budget_precision, card_precision, roc_auc, top_gap
from streams.launch.rows import DataFileError
from streams.payments.history import DAY
from streams.payments.model import FraudModel
from streams.payments.replay import replay, sequences

CHUNK = 4096  # rows judged at a time
CARDS, BUDGET = 100, 50  # a day
COUNTED = 7 * DAY  # --exclude-known: of what became known from so long before the cut


def evaluate_transactions(
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    bundle: Bundle,
    engine: str = "auto",
    *,
    cut: float | None = None,
    label_delay: float = 7.0,
    exclude_known: bool = False,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """The figures of the bundle over all payments, or those at `cut` (unix seconds) and later.

    What came before the cut only builds state; frauds are known `label_delay` days after their payment. With
    `exclude_known` a payment is not judged once a fraud of its account is known: of those that became known in the week
    before the cut, or later (without a cut: ever). Figures that need both kinds of payments are null, with a line that
    says why, where there is one kind alone. Raises DataFileError, BundleError or EngineError, one line each.
    """
    payments = read(files, mapping, label_delay)
    judged = np.ones(len(payments.label), bool) if cut is None else payments.table.time >= cut * 1000
    if exclude_known:
        judged &= ~known_before(payments, 0 if cut is None else int(cut * 1000) - COUNTED)
    rows = np.flatnonzero(judged)
    if not len(rows):
        raise DataFileError("no payment to judge: the data ends before --cut, or all accounts are excluded")
    model = FraudModel(bundle, engine, threads)
    try:
        scores = _scores(model, payments, rows)
    finally:
        model.close()
    return judge(payments, rows, scores)


def judge(payments: Payments, rows: NDArray[np.int64], score: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The figures of these scores of these rows."""
    label, day, account = payments.label[rows], payments.day[rows], payments.table.account[rows]
    n, rate = len(rows), float(label.mean())
    both = 0 < rate < 1
    if not both:
        sys.stderr.write(
            f"all {n} payments are {'frauds' if rate else 'honest'}: figures that need both kinds are null\n"
        )
    listed = [
        figure("average_precision", average_precision(label, score) if both else 0.0, n),
        figure("roc_auc", roc_auc(label, score) if both else 0.0, n),
        figure(f"card_precision@{CARDS}", card_precision(label, score, day, account, CARDS), n),
        figure(f"precision@{BUDGET}", budget_precision(label, score, day, BUDGET), n),
        figure("brier", brier(label, score), n),
        figure("brier_ratio", brier(label, score) / (rate * (1 - rate)) if both else 0.0, n)
        | {"against": "constant base rate"},
        figure("top1_gap", top_gap(label, score), n),
        figure("fraud_rate", rate, n),
    ]
    if not both:
        for one in listed[:4] + listed[5:6]:
            one["value"] = None
    return [*listed, figure("n", n, n, "count")]


def _scores(model: FraudModel, payments: Payments, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    replayed = replay(payments.table)
    found = np.empty(len(rows))
    for low in range(0, len(rows), CHUNK):
        some = rows[low : low + CHUNK]
        steps = sequences(replayed, payments.table, some)
        found[low : low + CHUNK] = model.score(replayed.features[some], steps)
    return found
