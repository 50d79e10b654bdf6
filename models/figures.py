"""Quality figures of classifiers, and the objects in which `evaluate` prints them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.intp]
Probabilities = NDArray[np.floating[Any]]


def accuracy(truth: Labels, predicted: Labels) -> float:
    """The share of right answers."""
    return float((truth == predicted).mean())


def f1_by_class(truth: Labels, predicted: Labels, classes: int) -> list[float]:
    """F1 of each class; 0 for a class that is neither there nor predicted."""
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    named = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return [float(2 * hit / max(both, 1)) for hit, both in zip(hits, named, strict=True)]


def macro_f1(truth: Labels, predicted: Labels, classes: int) -> float:
    """The mean of the classes' F1, over the classes that occur in the truth or the answers."""
    occurs = np.union1d(truth, predicted)
    return float(np.mean([f1_by_class(truth, predicted, classes)[i] for i in occurs]))


def expected_calibration_error(truth: Labels, probabilities: Probabilities, bins: int = 15) -> float:
    """The mean distance of confidence and accuracy over equal bins of confidence (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def classification(truth: Labels, probabilities: Probabilities) -> dict[str, float]:
    """`accuracy`, `macro_f1`, `ece` and `n`."""
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, probabilities.shape[1]),
        "ece": expected_calibration_error(truth, probabilities),
        "n": float(len(truth)),
    }


def report(truth: Labels, probabilities: Probabilities, labels: tuple[str, ...]) -> str:
    """Precision, recall, F1 and support of each class as a Markdown table."""
    predicted = probabilities.argmax(axis=1)
    lines = ["| class | precision | recall | F1 | support |", "|---|---|---|---|---|"]
    for i, f1 in enumerate(f1_by_class(truth, predicted, len(labels))):
        hits = int(((truth == i) & (predicted == i)).sum())
        precision = hits / max(1, int((predicted == i).sum()))
        recall = hits / max(1, int((truth == i).sum()))
        lines.append(
            f"| {labels[i]} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {int((truth == i).sum())} |"
        )
    return "\n".join(lines)


def figure(name: str, value: float, n: int, unit: str = "ratio") -> dict[str, Any]:
    """One object of the list that `evaluate --json` prints."""
    rounded = int(value) if unit == "count" else round(value, 6)
    blank = {"spread": None, "against": None, "bar": None, "ok": None}
    return {"figure": name, "value": rounded, "unit": unit, "n": n, **blank}
