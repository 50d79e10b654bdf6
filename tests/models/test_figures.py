"""Quality figures against scikit-learn's definitions and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.figures import (
    accuracy,
    classification,
    expected_calibration_error,
    f1_by_class,
    figure,
    macro_f1,
    report,
)


@pytest.mark.train
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """Macro F1 and accuracy are what scikit-learn computes."""
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra `train`")
    truth, predicted = (np.array(side, np.intp) for side in zip(*pairs, strict=True))
    assert macro_f1(truth, predicted, 3) == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert accuracy(truth, predicted) == pytest.approx(metrics.accuracy_score(truth, predicted))


def test_f1_of_each_class() -> None:
    """F1 is 2 hits over named and true; a class that nobody names has 0."""
    assert f1_by_class(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3) == pytest.approx([2 / 3, 4 / 5, 0])


def test_calibration_error_by_hand() -> None:
    """Two answers of confidence .9, one of them right, are .4 off; a sure and right one is not."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.0, 1.0]])
    assert expected_calibration_error(np.array([0, 1, 1]), probabilities) == pytest.approx(0.8 / 3)
    assert expected_calibration_error(np.array([1]), probabilities[2:]) == 0


def test_the_figures_of_a_classifier_have_the_contracts_names() -> None:
    """accuracy, macro_f1, ece and n."""
    found = classification(np.array([0, 1]), np.array([[0.8, 0.2], [0.4, 0.6]]))
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "ece": pytest.approx(0.3), "n": 2.0}


def test_a_figure_has_the_contracts_fields() -> None:
    """Every field is there, bars empty; a count is a whole number."""
    assert figure("n", 7.0, 7, "count") == {
        "figure": "n", "value": 7, "unit": "count", "n": 7, "spread": None, "against": None, "bar": None, "ok": None
    }  # fmt: skip


def test_the_report_has_a_line_for_each_class() -> None:
    """Precision, recall, F1 and support."""
    table = report(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]), ("no", "yes"))
    assert "| no | 1.000 | 0.500 | 0.667 | 2 |" in table
    assert "| yes | 0.500 | 1.000 | 0.667 | 1 |" in table
