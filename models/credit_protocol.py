"""`python -m models.credit_protocol`: five times five folds of the Taiwan file, against LightGBM as it comes.

Default of Credit Card Clients (Yeh and Lien 2009, UCI 350, CC BY 4.0), its 24,000 training applications. The
settings are the one set that was tried, on other data; nothing was tuned (models/LOG.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np

from models.credit import read_to_train
from models.credit_fit import FOLDS, fit, folds
from models.figures import figure
from models.fraud_figures import roc_auc
from models.splits import data_folder
from streams.launch.tables import table

TIMES = 5
BAR = 0.78


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets [default: TAPEWATCH_DATA]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = (options.data or data_folder()) / "taiwan-credit-default" / "credit_default_train.csv.gz"
    _, rows, label = read_to_train([path], {"label": "Y", "id": "ID"})
    ours, theirs = [], []
    for seed in range(1, TIMES + 1):
        fold = folds(label, FOLDS, seed)
        for number in range(FOLDS):
            inside, outside = fold == number, fold != number
            ours.append(roc_auc(label[inside], fit(rows[outside], label[outside], seed).score(rows[inside])))
            plain = lightgbm.LGBMClassifier(verbose=-1, n_jobs=1).fit(rows[outside], label[outside])
            theirs.append(roc_auc(label[inside], np.asarray(plain.predict_proba(rows[inside]))[:, 1]))
        sys.stderr.write(f"seed {seed}: {np.mean(ours):.5f} against {np.mean(theirs):.5f}\n")
    better = np.array(ours) - np.array(theirs)
    n = len(ours)
    figures = [
        figure("roc_auc", float(np.mean(ours)), n) | {"bar": BAR, "ok": bool(np.mean(ours) >= BAR)},
        figure("default LightGBM.roc_auc", float(np.mean(theirs)), n),
        figure("roc_auc less default LightGBM", float(better.mean()), n)
        | {"bar": 0.0, "ok": bool(better.mean() > 0), "against": "default LightGBM"},
        figure("folds better", float((better > 0).mean()), n),
    ]
    figures[0]["spread"] = [round(float(min(ours)), 6), round(float(max(ours)), 6)]
    sys.stdout.write((json.dumps(figures) if options.json else table(figures)) + "\n")


if __name__ == "__main__":
    main()
