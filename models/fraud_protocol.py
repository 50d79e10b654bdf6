"""`python -m models.fraud_protocol`: the fraud model on public data, by the Fraud Detection Handbook's protocol.

The Handbook's simulated transactions (Le Borgne et al. 2022; no licence stated, so nothing trained here is shipped).

    handbook   train 2018-07-25..31, delay 7 days, test 2018-08-08..14, without cards known as compromised; the rival is
               the Handbook's 15 features and its XGBoost (exact splits, base score 0.5: this repeats its .639 / .862 /
               .273)
    six weeks  train on the six weeks to a day, test all of the week that begins eight days later; the rival is the
               same trees with the Handbook's 15 features
    ceiling    the average precision of a judge that knows how the simulator works: see models/fraud_ceiling.py

Settings were chosen on weeks before 2018-07-18 (models/LOG.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import fraud_ceiling, trees
from models.fraud_data import Payments, known_before, read
from models.fraud_figures import average_precision, brier, budget_precision, card_precision, roc_auc, top_gap
from models.fraud_fit import Recipe, fit, sample
from models.fraud_handbook import handbook_features
from models.splits import data_folder
from streams.launch.tables import table as as_table
from streams.payments import features as feature_code
from streams.payments import history as history_code
from streams.payments.history import DAY
from streams.payments.replay import Replayed, replay, sequences

MAPPING = {
    "id": "TRANSACTION_ID",
    "ts": "TX_DATETIME",
    "account": "CUSTOMER_ID",
    "terminal": "TERMINAL_ID",
    "amount": "TX_AMOUNT",
    "label": "TX_FRAUD",
}
DELAY = 7  # days
SIX_WEEKS = (("2018-07-10", "2018-07-18"), ("2018-07-24", "2018-08-01"), ("2018-08-07", "2018-08-15"))
BARS = {
    "average_precision": 0.74,
    "roc_auc": 0.89,
    "card_precision@100 / handbook": 1.08,
    "brier / constant": 0.5,
}
RATIO_BAR = 1.12


class Data(NamedTuple):
    """The Handbook's payments, what they looked like, and the Handbook's own features of them."""

    payments: Payments
    replayed: Replayed
    handbook: NDArray[np.float32]

    def rows(self, first: str, days: int) -> NDArray[np.int64]:
        """The rows of so many days."""
        start = day_of(first)
        return np.flatnonzero((self.payments.day >= start) & (self.payments.day < start + days))

    def steps(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The sequences of these rows."""
        return sequences(self.replayed, self.payments.table, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets [default: TAPEWATCH_DATA]")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tapewatch-fraud")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=["handbook", "weeks"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    folder = (options.data or data_folder()) / "fraud-handbook-simulated"
    data = load(folder, options.cache)
    figures: list[dict[str, Any]] = []
    if options.only != "weeks":
        figures += handbook(data, options.seeds)
    if options.only != "handbook":
        for end, test in SIX_WEEKS:
            figures += six_weeks(data, end, test, options.seeds)
        figures += fraud_ceiling.figures(folder, data.payments, [test for _, test in SIX_WEEKS])
    sys.stdout.write((json.dumps(figures) if options.json else as_table(figures)) + "\n")


def load(folder: Path, cache: Path) -> Data:
    """Read and replay the data once; later runs of the same code on the same files take it from `cache`."""
    files = sorted(folder.glob("transactions_*.csv.gz"))
    digest = hashlib.sha256()
    for source in (*files, Path(str(feature_code.__file__)), Path(str(history_code.__file__))):
        digest.update(source.read_bytes())
    payments = read(files, MAPPING, DELAY)
    kept = cache / f"{digest.hexdigest()[:16]}.npz"
    if not kept.exists():
        say("features of all payments, once")
        made = replay(payments.table)
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".part.npz")
        np.savez(partial, **{name: getattr(made, name) for name in Replayed.__dataclass_fields__})
        partial.replace(kept)
    with np.load(kept) as found:
        replayed = Replayed(**{name: found[name] for name in Replayed.__dataclass_fields__})
    return Data(payments, replayed, handbook_features(payments))


def handbook(data: Data, seeds: int) -> list[dict[str, Any]]:
    """The Handbook's own split; the mean over the seeds."""
    train = data.rows("2018-07-25", 7)
    test = data.rows("2018-08-08", 7)
    test = test[~known_before(data.payments, (day_of("2018-07-25") + DELAY) * DAY)[test]]
    label, day, account = data.payments.label, data.payments.day, data.payments.table.account
    rival = rival_scores(data, train, test)
    rival_cards = card_precision(label[test], rival, day[test], account[test])
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        p = scores(data, train, test, seed)
        base = float(label[test].mean())
        values = {
            "average_precision": average_precision(label[test], p),
            "roc_auc": roc_auc(label[test], p),
            "card_precision@100": card_precision(label[test], p, day[test], account[test]),
            "brier / constant": brier(label[test], p) / (base * (1 - base)),
            "top 1 %: score less fraud rate": top_gap(label[test], p),
            "precision@50": budget_precision(label[test], p, day[test], 50),
        }
        values["card_precision@100 / handbook"] = values["card_precision@100"] / rival_cards
        say(f"handbook, seed {seed}: {values}")
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    figures = [figure_of(f"handbook.{name}", values, BARS.get(name)) for name, values in found.items()]
    brier_figure = next(one for one in figures if "brier" in one["figure"])
    gap = next(one for one in figures if "top 1 %" in one["figure"])
    gap["bar"], gap["ok"] = 0.05, abs(gap["value"]) <= 0.05
    brier_figure["ok"] = brier_figure["value"] <= 0.5
    for name, value in (
        ("average_precision", average_precision(label[test], rival)),
        ("roc_auc", roc_auc(label[test], rival)),
        ("card_precision@100", rival_cards),
        ("n", float(len(test))),
    ):
        figures.append(figure_of(f"handbook features and XGBoost.{name}", [value], None))
    return figures


def six_weeks(data: Data, end: str, test: str, seeds: int) -> list[dict[str, Any]]:
    """Six weeks to `end`, then all of the week from `test` on; over the same trees with the Handbook's features."""
    first = datetime.fromtimestamp((day_of(end) - 41) * 86_400, UTC).date().isoformat()
    train, judged = data.rows(first, 42), data.rows(test, 7)
    label = data.payments.label
    ours, theirs = [], []
    for seed in range(seeds):
        ours.append(average_precision(label[judged], scores(data, train, judged, seed)))
        theirs.append(average_precision(label[judged], same_trees(data, train, judged, seed)))
        say(f"week of {test}, seed {seed}: {ours[-1]:.4f} over {theirs[-1]:.4f}")
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return [
        figure_of(f"week of {test}.average_precision", ours, None),
        figure_of(f"week of {test}.handbook features.average_precision", theirs, None),
        figure_of(f"week of {test}.average_precision / handbook features, same trees", ratios, RATIO_BAR),
    ]


def scores(data: Data, train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The calibrated probabilities of the whole model for the test rows."""
    features = data.replayed.features
    fitted = fit(features, data.steps, data.payments.label, train, Recipe(), seed)
    tree, other = fitted.parts(features[test], data.steps(test))
    return fitted.blend.probability(tree, other, features[test])


def same_trees(
    data: Data, train: NDArray[np.int64], test: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """The trees of the model, settings and sample alike, on the Handbook's 15 features."""
    recipe = Recipe()
    kept, weight = sample(data.payments.label, train, recipe.negatives, np.random.default_rng(seed))
    seeds = [seed * 100 + number for number in range(recipe.boosters)]
    rows = data.handbook
    made = trees.fit(rows[kept], data.payments.label[kept], weight, recipe.trees, recipe.rounds, seeds)
    return made.score(rows[test])


def rival_scores(data: Data, train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64]:
    """The Handbook's model: XGBoost as it was then, exact splits from a base score of one half."""
    try:
        import xgboost
    except ModuleNotFoundError:
        raise SystemExit("the rival needs XGBoost: pip install xgboost-cpu") from None
    model = xgboost.XGBClassifier(random_state=0, n_jobs=1, tree_method="exact", base_score=0.5)
    model.fit(data.handbook[train], data.payments.label[train])
    return np.asarray(model.predict_proba(data.handbook[test])[:, 1], np.float64)


def figure_of(name: str, values: list[float], bar: float | None) -> dict[str, Any]:
    mean = float(np.mean(values))
    spread = [round(min(values), 6), round(max(values), 6)] if len(values) > 1 else None
    return {
        "figure": name,
        "value": round(mean, 6),
        "unit": "ratio",
        "n": len(values),
        "spread": spread,
        "against": "Fraud Detection Handbook" if "/ handbook" in name else None,
        "bar": bar,
        "ok": None if bar is None else mean >= bar,
    }


def day_of(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) // 86_400


def say(what: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    main()
