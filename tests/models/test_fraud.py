"""Fraud models from labelled payments to a bundle that serves, on a small world of the simulator."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

for _needed in ("lightgbm", "torch", "onnx", "onnxscript"):
    pytest.importorskip(_needed, reason="needs the extra `train`")

from engines.bundle import BundleError, open_bundle  # noqa: E402
from models import fraud_fit, fraud_sequence, tasks  # noqa: E402
from models.fraud_data import known_before, read  # noqa: E402
from models.train import TrainingError  # noqa: E402
from streams.launch.rows import DataFileError  # noqa: E402
from streams.payments.features import FEATURES, STEP, STEPS  # noqa: E402
from streams.payments.history import DAY  # noqa: E402
from streams.payments.model import FraudModel  # noqa: E402
from streams.payments.population import Scale  # noqa: E402
from streams.payments.replay import replay, sequences  # noqa: E402
from streams.payments.simulator import Simulator, rows  # noqa: E402
from streams.settings import read_settings  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]
FIRST, DAYS = 20_400, 28
COLUMNS = ("id", "when", "account", "terminal", "amount", "currency", "country", "label")
MAPPING = {"ts": "when"}


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a user's own: four weeks, its time column under another name."""
    path = tmp_path_factory.mktemp("payments") / "payments.csv"
    world = Simulator(7, Scale(accounts=40, terminals=40, per_day=8, fraud=0.04))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for made in world.between(FIRST * DAY, (FIRST + DAYS) * DAY):
            writer.writerows({**row, "when": row["ts"]} for row in rows(made))
    return path


@pytest.fixture(scope="module")
def bundle(payments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained by the table of tasks, with a short recipe."""
    quick = fraud_fit.Recipe(rounds=12, boosters=2, negatives=3000, epochs=1)
    out = tmp_path_factory.mktemp("bundles") / "transactions" / "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fraud_fit, "Recipe", lambda: quick)
        tasks.train("transactions", tasks.ask([str(payments)], MAPPING), str(out), read_settings())
    return out


def test_scores_are_probabilities_and_reasons_add_up(payments: Path, bundle: Path) -> None:
    """All reasons of a payment make the log-odds of its score; without the last two, the trees' log-odds."""
    model, found = FraudModel(open_bundle(bundle)), read([payments], MAPPING, 7)
    replayed = replay(found.table)
    some = np.arange(0, len(found.label), 97)
    features, steps = replayed.features[some], sequences(replayed, found.table, some)
    p = model.score(features, steps)
    tree, _ = model.parts(features, steps)
    for index, reasons in enumerate(model.reasons(features, steps)):
        total = sum(one.contribution for one in reasons)
        assert abs(total - math.log(p[index] / (1 - p[index]))) < 1e-6
        assert abs(sum(one.contribution for one in reasons[:-2]) - tree[index]) < 1e-6
        assert [one.feature for one in reasons[-4:]] == [
            "other_features",
            "base",
            "sequence_model",
            "calibration",
        ]
    model.close()


def test_evaluate_judges_what_follows_the_cut(payments: Path, bundle: Path) -> None:
    """What came before the cut builds state; the figures are over the rest, better than chance."""
    asked = tasks.ask([str(payments)], MAPPING, cut="2025-12-01")
    figures = {
        one["figure"]: one["value"]
        for one in tasks.evaluate("transactions", asked, str(bundle), read_settings())
    }
    found = read([payments], MAPPING, 7)
    assert figures["n"] == int((found.table.time >= 1_764_547_200_000).sum())
    assert figures["roc_auc"] > 0.6


def test_a_bundle_for_other_features_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model never scores features that it was not trained on."""
    monkeypatch.setattr("streams.payments.model.FEATURES", (*FEATURES[:-1], "phase_of_the_moon"))
    with pytest.raises(BundleError, match="phase_of_the_moon"):
        FraudModel(open_bundle(bundle))


def test_unripe_payments_are_not_trained_on(
    payments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No payment younger than the delay before the end of the period reaches the model."""
    seen: list[np.ndarray] = []

    def spy(features: object, steps: object, label: object, rows: np.ndarray, *rest: object) -> None:
        seen.append(rows)
        raise TrainingError("seen")

    monkeypatch.setattr(fraud_fit, "fit", spy)
    asked = tasks.ask([str(payments)], MAPPING, until="2025-12-01", label_delay=5)
    with pytest.raises(TrainingError, match="seen"):
        tasks.train("transactions", asked, str(tmp_path / "1"), read_settings())
    newest = read([payments], MAPPING, 5).table.time[seen[0]].max()
    assert newest <= 1_764_547_200_000 - 5 * DAY


def test_the_sequence_model_builds_for_tensorrt() -> None:
    """TensorRT-RTX makes an engine of the half-precision graph, with no GPU."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    graph = fraud_sequence.graph(fraud_sequence.Network().eval(), half=True)
    assert parser.parse(graph.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shapes = [(n, STEPS, len(STEP)) for n in (1, 64, 512)]
    profile.set_shape("steps", *shapes)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_one_class_is_said_plainly(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Honest payments alone give null figures and a line that says why."""
    path = tmp_path / "honest.csv"
    path.write_text("ts,account,terminal,amount,label\n2026-01-01T00:00:00Z,a,t,5,0\n")
    asked = tasks.ask([str(path)], {})
    figures = {
        one["figure"]: one["value"]
        for one in tasks.evaluate("transactions", asked, str(bundle), read_settings())
    }
    assert (figures["average_precision"], figures["roc_auc"], figures["n"]) == (None, None, 1)
    assert "all 1 payments are honest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("yesterday,a,t,5,0", "not a time"),
        ("2026-01-01,a,t,nan,0", "not a number"),
        ("2026-01-01,a,t,5,maybe", "neither 0 nor 1"),
        ("2026-01-01,,t,5,0", "no account"),
        ("1999-01-01,a,t,5,0", "before 2000"),
    ],
)
def test_a_wrong_row_is_named(row: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong row is reported with its line; where all are wrong the command fails."""
    path = tmp_path / "wrong.csv"
    path.write_text(f"ts,account,terminal,amount,label\n{row}\n")
    with pytest.raises(DataFileError, match="no usable row"):
        read([path], {}, 7)
    err = capsys.readouterr().err
    assert why in err
    assert "line 2" in err


def test_an_integer_beyond_any_float_is_a_wrong_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON knows integers of any size; such an amount is reported like any other that is no number."""
    path = tmp_path / "wrong.jsonl"
    amount = "9" * 400
    line = (
        f'{{"ts": "2026-01-01T00:00:00Z", "account": "a", "terminal": "t", "amount": {amount}, "label": 0}}'
    )
    path.write_text(line + "\n")
    with pytest.raises(DataFileError, match="no usable row"):
        read([path], {}, 7)
    assert "is not a number" in capsys.readouterr().err


def test_known_cards_are_those_known_by_the_end_of_the_day(tmp_path: Path) -> None:
    """A card leaves the test on the day on which its fraud becomes known, if that was since the given time."""
    path = tmp_path / "cards.csv"
    lines = ["2026-01-01T12:00:00,a,t,5,1", *(f"2026-01-{day:02d}T01:00:00,a,t,5,0" for day in (7, 8, 9))]
    path.write_text("ts,account,terminal,amount,label\n" + "\n".join(lines) + "\n")
    found = read([path], {}, 7)
    assert known_before(found, 0).tolist() == [False, False, True, True]
    assert known_before(found, int(found.table.known[0]) + 1).tolist() == [False] * 4
