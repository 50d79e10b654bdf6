"""`tapewatch models train credit` and `tapewatch evaluate credit`: labelled applications to a bundle or figures."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from models.figures import figure
from models.fraud_figures import average_precision, brier, roc_auc
from models.train import TrainingError
from streams.credit import BLANK, Column, CreditModel, WrongRow, encode, number
from streams.launch.rows import DataFileError, Tolerance, read_rows

LEAST = 50  # applications of each kind to train on
MOST_LEVELS = 50  # of a category
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "good": 0, "bad": 1, "false": 0, "true": 1}


class Applications(NamedTuple):
    """Encoded applications: columns, float32 [n, columns], label int8 [n] (1: default)."""

    columns: list[Column]
    rows: NDArray[np.float32]
    label: NDArray[np.int8]


def train_credit(
    files: Sequence[Path | str], mapping: Mapping[str, str], out: Path, without: Sequence[str] = ()
) -> Path:
    """Train on all files and write a bundle to `out`; the columns `without` are not read.

    Raises TrainingError or DataFileError, one line each.
    """
    for needed in ("lightgbm", "onnx"):
        if find_spec(needed) is None:
            raise TrainingError(f"training needs {needed}: run `make setup-train`")
    if out.exists():
        raise TrainingError(f"{out} exists; name another folder with --out")
    if not files:
        raise TrainingError("name your labelled applications with --data FILE")
    from models import credit_fit  # LightGBM is loaded once there is data

    applications = read_to_train(files, mapping, without)
    source = ", ".join(Path(name).name for name in files)
    bundle = credit_fit.write_bundle(applications, out, source, digest(applications))
    sys.stderr.write(f"{bundle.folder}: {dict(sorted(bundle.manifest.figures.items()))}\n")
    return bundle.folder


def evaluate_credit(
    files: Sequence[Path | str], mapping: Mapping[str, str], bundle: Bundle, engine: str = "auto"
) -> list[dict[str, Any]]:
    """The figures roc_auc, gini, average_precision, brier and n of the bundle on labelled applications."""
    del engine  # trees run on ONNX Runtime whatever is asked
    model = CreditModel(bundle)
    rows: list[list[float]] = []
    label: list[int] = []
    for path in files:
        tolerance = Tolerance(path)
        for row in read_rows(path, mapping):
            try:
                if row.data is None:
                    raise WrongRow(row.error)
                truth = _label(row.data)
                rows.append(encode(model.columns, row.data))
            except WrongRow as error:
                tolerance.reject(row.line, str(error))
                continue
            label.append(truth)
            tolerance.accept()
        tolerance.judge()
    odds = model.odds(np.array(rows, np.float32))
    model.close()
    truths, p = np.array(label), 1 / (1 + np.exp(-odds))
    n, both = len(truths), 0 < truths.mean() < 1
    if not both:
        sys.stderr.write(f"all {n} applications have one label: figures that need both are null\n")
    auc = roc_auc(truths, p) if both else 0.0
    listed = [
        figure("roc_auc", auc, n),
        figure("gini", 2 * auc - 1, n),
        figure("average_precision", average_precision(truths, p) if both else 0.0, n),
        figure("brier", brier(truths, p), n),
    ]
    if not both:
        for one in listed[:3]:
            one["value"] = None
    return [*listed, figure("n", n, n, "count")]


def read_to_train(
    files: Sequence[Path | str], mapping: Mapping[str, str], without: Sequence[str] = ()
) -> Applications:
    """All applications, with the columns found out: a column is numbers where all its values are.

    `id` and `label` are no features. Raises DataFileError.
    """
    found: list[dict[str, Any]] = []
    label: list[int] = []
    for path in files:
        tolerance = Tolerance(path)
        for row in read_rows(path, mapping):
            try:
                if row.data is None:
                    raise WrongRow(row.error)
                truth = _label(row.data)
                if found and set(row.data) != set(found[0]):
                    raise WrongRow("other columns than the rows before")
            except WrongRow as error:
                tolerance.reject(row.line, str(error))
                continue
            tolerance.accept()
            found.append(row.data)
            label.append(truth)
        tolerance.judge()
    truths = np.array(label, np.int8)
    if min(int(truths.sum()), int((1 - truths).sum())) < LEAST:
        raise DataFileError(f"too few applications: {LEAST} of each label are needed")
    if unknown := set(without) - set(found[0]):
        raise DataFileError(f"--without names no column: {', '.join(sorted(unknown))}")
    names = [name for name in found[0] if name.lower() not in ("id", "label") and name not in without]
    columns = [_column(name, [row[name] for row in found], truths) for name in names]
    if not columns:
        raise DataFileError("no column but id and label")
    return Applications(columns, np.array([encode(columns, row) for row in found], np.float32), truths)


def _column(name: str, values: list[Any], label: NDArray[np.int8]) -> Column:
    texts = [str("" if value is None else value).strip() for value in values]
    blank = np.array([text.lower() in BLANK for text in texts])
    try:
        for text in texts:
            if text.lower() not in BLANK:
                number(name, text)
    except WrongRow:
        levels = sorted({text for text in texts if text.lower() not in BLANK})
        if len(levels) > MOST_LEVELS:
            raise DataFileError(
                f"column {name!r} is neither numbers nor a category: {len(levels)} different values; "
                f"leave it out (--without {name})"
            ) from None
        table = np.array(texts)
        risk = {level: (label[table == level].sum() + 1) / ((table == level).sum() + 2) for level in levels}
        return Column(
            name, "category", tuple(sorted(levels, key=lambda one: (risk[one], one))), bool(blank.any())
        )
    return Column(name, "number", (), bool(blank.any()))


def _label(row: Mapping[str, Any]) -> int:
    found = _LABELS.get(str(row.get("label", "")).strip().lower())
    if found is None:
        raise WrongRow(
            f"label {str(row.get('label'))[:40]!r} is neither 0 nor 1 (--map label=COLUMN renames one)"
        )
    return found


def digest(applications: Applications) -> str:
    """SHA-256 of what was trained on."""
    return hashlib.sha256(applications.rows.tobytes() + applications.label.tobytes()).hexdigest()
