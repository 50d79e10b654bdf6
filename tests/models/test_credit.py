"""Credit scoring: a user's applications to a bundle, scores with reasons, a scorecard."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

for _needed in ("lightgbm", "onnx"):
    pytest.importorskip(_needed, reason="needs the extra `train`")

from engines.bundle import activate  # noqa: E402
from models import credit_fit, tasks  # noqa: E402
from models.credit import read_to_train  # noqa: E402
from streams import credit  # noqa: E402
from streams.launch.rows import DataFileError  # noqa: E402
from streams.settings import Settings, read_settings  # noqa: E402

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Bundles with one credit model of three columns, one of them a category and one with gaps."""
    folder = tmp_path_factory.mktemp("bundles")
    rng = np.random.default_rng(3)
    lines = ["ID,income,home,age,label"]
    for number in range(900):
        income, home, age = rng.integers(10, 90), rng.choice(["own", "rent"]), rng.integers(18, 80)
        risk = 1 / (1 + math.exp((income - 40) / 10 - (home == "rent")))
        lines.append(f"{number},{income},{home},{'' if number % 9 == 0 else age},{int(rng.random() < risk)}")
    path = folder / "applications.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit_fit, "ROUNDS", 20)
        patch.setenv("TAPEWATCH_BUNDLES", str(folder))
        found = read_settings()
        made = tasks.train("credit", tasks.ask([str(path)], {}), None, found)
    activate(folder, "credit", made.name)
    return found


def scored(settings: Settings, tmp_path: Path, text: str) -> list[dict[str, object]]:
    """What `tapewatch score credit` prints for a file of this text."""
    path, out = tmp_path / "new.csv", io.StringIO()
    path.write_text(text)
    credit.score(settings, str(path), {}, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_scores_come_in_order_and_reasons_add_up(settings: Settings, tmp_path: Path) -> None:
    """The contributions make the log-odds of the score; more income is less risk and more points."""
    poor, rich = scored(settings, tmp_path, "ID,income,home,age\np,15,rent,40\nr,80,own,\n")
    assert (poor["id"], rich["id"]) == ("p", "r")
    assert float(str(poor["score"])) > float(str(rich["score"]))
    assert int(str(poor["points"])) < int(str(rich["points"]))
    for one in (poor, rich):
        reasons, p = one["reasons"], float(str(one["score"]))
        assert isinstance(reasons, list)
        assert abs(sum(reason["contribution"] for reason in reasons) - math.log(p / (1 - p))) < 1e-3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ID,income,age\n1,50,40\n", "no column 'home'"),
        ("ID,income,home,age\n1,50,castle,40\n", "'castle' is none of own, rent"),
        ("ID,income,home,age\n1,much,own,40\n", "income 'much' is not a number"),
        ("ID,income,home,age\n1,,own,40\n", "income is empty, and never was in training"),
    ],
)
def test_wrong_features_are_an_error_and_no_missing_value(
    text: str, why: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row whose features are not the model's is named, with its line, and not scored."""
    with pytest.raises(DataFileError):
        scored(settings, tmp_path, text)
    assert why in capsys.readouterr().err


def test_evaluate_gives_the_figures(settings: Settings) -> None:
    """The bundle separates good from bad on labelled applications."""
    path = settings.bundles / "applications.csv"
    figures = {
        one["figure"]: one["value"]
        for one in tasks.evaluate("credit", tasks.ask([str(path)], {}), None, settings)
    }
    assert figures["n"] == 900
    assert figures["roc_auc"] > 0.7


def test_the_scorecard_covers_every_application(settings: Settings) -> None:
    """Each column's bins hold each training application once."""
    lines = credit.scorecard(settings, None)
    for column in ("income", "home", "age"):
        assert sum(one["good"] + one["bad"] for one in lines if one["column"] == column) == 900


def test_the_id_is_no_feature(settings: Settings) -> None:
    """Neither id nor label nor what `without` names is read."""
    columns, _, _ = read_to_train([settings.bundles / "applications.csv"], {}, ["home"])
    assert [one.name for one in columns] == ["income", "age"]


def test_an_option_of_another_task_is_refused(settings: Settings) -> None:
    """`--cut` means nothing to credit, and says so."""
    with pytest.raises(Exception, match="--cut: not an option of credit"):
        tasks.evaluate("credit", tasks.ask(["x.csv"], {}, cut="2026-01-01"), None, settings)
