"""`evaluate news` on labelled files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.bundle import BundleError, active_folder
from engines.text import open_classifier
from models.evaluate import evaluate_news, judge
from streams.launch.rows import DataFileError

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
GOOD = [("Shares crash", "negative"), ("Profit surges", "positive"), ("Annual meeting in May", "neutral")] * 5


def values(
    path: Path, report: io.StringIO | None = None, mapping: dict[str, str] | None = None
) -> dict[str, float]:
    figures = judge(open_classifier(BUNDLES, "news", "tiny"), [path], mapping or {}, report)
    return {figure["figure"]: figure["value"] for figure in figures}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_figures_of_a_file(tmp_path: Path) -> None:
    """Right answers are counted; the label may be written in capitals, the symbol does not matter."""
    rows: list[dict[str, object]] = [{"title": a, "label": b.upper(), "symbol": "X"} for a, b in GOOD]
    rows[0]["label"] = "positive"
    found = values(write(tmp_path / "f.jsonl", rows))
    assert found["accuracy"] == pytest.approx(14 / 15, abs=1e-6)
    assert found["n"] == 15
    assert set(found) == {"accuracy", "macro_f1", "ece", "n"}


def test_columns_of_other_names(tmp_path: Path) -> None:
    """`--map` renames the columns."""
    path = write(tmp_path / "f.jsonl", [{"text": a, "sentiment": b} for a, b in GOOD])
    assert values(path, mapping={"title": "text", "label": "sentiment"})["accuracy"] == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"title": "T", "label": "bullish"}, "label 'bullish' is none of"),
        ({"title": " ", "label": "neutral"}, "no title"),
        ({"title": 7, "label": "neutral"}, "no title"),
        ({"title": "x" * 2001, "label": "neutral"}, "2001 characters"),
        ({"label": "neutral"}, "no title"),
    ],
)
def test_a_wrong_row_is_reported_and_skipped(tmp_path: Path, wrong: dict[str, object], says: str) -> None:
    """One wrong row in sixteen is named with its line, and the rest is judged."""
    rows: list[dict[str, object]] = [{"title": a, "label": b} for a, b in GOOD]
    rows.append(wrong)
    report = io.StringIO()
    assert values(write(tmp_path / "f.jsonl", rows), report)["n"] == 15
    assert "f.jsonl, line 16: " in report.getvalue()
    assert says in report.getvalue()


def test_too_many_wrong_rows_are_an_error(tmp_path: Path) -> None:
    """More than one wrong row in ten ends the command."""
    rows: list[dict[str, object]] = [{"title": a, "label": b} for a, b in GOOD]
    rows += [{}, {}]
    with pytest.raises(DataFileError, match="2 of 17 rows are wrong"):
        values(write(tmp_path / "f.jsonl", rows), io.StringIO())


def test_a_folder_that_is_no_bundle_is_said(tmp_path: Path) -> None:
    """`--bundle` of a wrong folder is a BundleError."""
    with pytest.raises(BundleError, match="not a bundle"):
        evaluate_news([], {}, tmp_path)


def test_evaluation_needs_no_torch(tmp_path: Path) -> None:
    """The committed model is judged in a process where torch and transformers cannot be imported."""
    path = write(tmp_path / "f.jsonl", [{"title": a, "label": b} for a, b in GOOD])
    program = (
        "import sys; sys.modules.update(torch=None, transformers=None, onnx=None)\n"
        "from models.evaluate import evaluate_news; from pathlib import Path\n"
        f"print(evaluate_news([{str(path)!r}], {{}}, Path({str(active_folder(BUNDLES, 'news'))!r}))[0]['value'])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert float(done.stdout) == 1
