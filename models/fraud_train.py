"""`tapewatch models train transactions`: from labelled payments to a published bundle."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from models.fraud_data import Payments, read
from models.fraud_figures import average_precision, roc_auc
from models.train import Period, TrainingError
from streams.payments.decide import Costs
from streams.payments.history import DAY
from streams.payments.replay import replay, sequences

LABEL_DELAY = 7.0  # days after which a payment without a label counts as honest
NEEDED = ("lightgbm", "torch", "onnx", "onnxscript")


def train_transactions(
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    period: Period,
    out: Path,
    *,
    label_delay: float = LABEL_DELAY,
    source: str = "the user's own files",
    seed: int = 1,
) -> Path:
    """Train on the payments of `period` and write a bundle to the folder `out`; earlier ones only build state.

    Payments younger than `label_delay` before the newest (or before the period's end) are not trained on: a fraud among
    them may not be known yet. Raises TrainingError or DataFileError, one line each.
    """
    for needed in NEEDED:
        if find_spec(needed) is None:
            raise TrainingError(f"training needs {needed}: run `make setup-train`")
    if out.exists():
        raise TrainingError(f"{out} exists; name another folder with --out")
    if not files:
        raise TrainingError("name your labelled payments with --data FILE")
    payments = read(files, mapping, label_delay, period.until)
    return make(payments, period, out, label_delay, source, seed)


def make(
    payments: Payments, period: Period, out: Path, label_delay: float, source: str, seed: int = 1
) -> Path:
    """The same from a table."""
    from models import fraud_bundle, fraud_fit  # torch and LightGBM are loaded once the data was found good

    table = payments.table
    now = int(table.time.max()) if period.until is None else int(period.until * 1000)
    ripe = table.time <= now - int(label_delay * DAY)
    since = period.since
    rows = np.flatnonzero(ripe if since is None else ripe & (table.time >= since * 1000))
    if not len(rows):
        raise TrainingError(f"no payment is {label_delay:g} days older than the newest: no label is ripe")
    _say(f"{len(table.time):,} payments, {len(rows):,} of them ripe; features of all, in order of arrival")
    replayed = replay(table)
    recipe = fraud_fit.Recipe()
    fitted = fraud_fit.fit(
        replayed.features,
        lambda some: sequences(replayed, table, some),
        payments.label,
        rows,
        recipe,
        seed,
        _say,
    )
    held = fitted.heldout
    label = payments.label[held.rows]
    figures = {
        "average_precision": average_precision(label, held.probability, held.weight),
        "roc_auc": roc_auc(label, held.probability),
        "brier": float(np.average((held.probability - label) ** 2, weights=held.weight)),
        "fraud_rate": float(np.average(label, weights=held.weight)),
        "n": float(len(label)),
    }
    origin = fraud_bundle.Origin(
        version=out.name,
        base="none: trained from nothing",
        data=source,
        data_sha256=hashlib.sha256(np.stack([*vars(table).values(), payments.label]).tobytes()).hexdigest(),
        recipe=f"{recipe.boosters} boosters of {recipe.rounds} trees ({recipe.trees}), sequence {recipe.epochs} epochs,"
        f" seed {seed}, labels {label_delay:g} days late",
    )
    some = held.rows
    bundle = fraud_bundle.write_bundle(
        fitted,
        replayed.features[some],
        sequences(replayed, table, some),
        figures,
        Costs()._asdict(),
        origin,
        out,
    )
    _say(f"{bundle.folder}: {dict(sorted(bundle.manifest.figures.items()))}")
    return bundle.folder


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()
