"""`tapewatch evaluate news`: how good the served model is on labelled files. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from engines.bundle import open_bundle
from engines.text import TextClassifier, from_bundle
from models.figures import classification, figure
from streams.headlines.text import normalise
from streams.launch.rows import Row, Tolerance, read_rows

CHUNK = 512  # rows judged at a time
LONGEST_TITLE = 2000  # characters, as on the wire


def evaluate_news(
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    bundle: Path,
    engine: str = "auto",
    threads: int = 1,
) -> list[dict[str, Any]]:
    """The figures accuracy, macro_f1, ece and n of the bundle in the folder `bundle`, over all files.

    A row has a `title` and a `label`; with a `symbol` the label is towards that entity, and is compared with
    what serving says of it. Raises DataFileError where more than one row in ten of a file is wrong, and
    BundleError or EngineError where the model cannot run; each is one line.
    """
    classifier = from_bundle(open_bundle(bundle), engine, threads)
    try:
        return judge(classifier, files, mapping)
    finally:
        classifier.close()


def judge(
    classifier: TextClassifier,
    files: Sequence[Path | str],
    mapping: Mapping[str, str],
    report: TextIO | None = None,
) -> list[dict[str, Any]]:
    """The figures of an open classifier; wrong rows are reported on `report` (default standard error)."""
    truth: list[int] = []
    found = [np.zeros((0, len(classifier.labels)), np.float32)]
    for path in files:
        tolerance = Tolerance(path, report or sys.stderr)
        titles: list[str] = []
        for title, label in labelled(read_rows(path, mapping), classifier.labels, tolerance):
            titles.append(normalise(title))
            truth.append(label)
            if len(titles) == CHUNK:
                found.append(classifier.probabilities(titles))
                titles.clear()
        found.append(classifier.probabilities(titles))
        tolerance.judge()
    figures = classification(np.array(truth, np.intp), np.concatenate(found))
    n = int(figures.pop("n"))
    listed = [figure(name, value, n) for name, value in figures.items()]
    return [*listed, figure("n", n, n, "count")]


def labelled(rows: Iterator[Row], labels: tuple[str, ...], tolerance: Tolerance) -> Iterator[tuple[str, int]]:
    """Title and index of the label of each good row; the others are reported and counted."""
    for row in rows:
        data = row.data or {}
        title, label = data.get("title"), data.get("label")
        if row.error is not None:
            tolerance.reject(row.line, row.error)
        elif not isinstance(title, str) or not title.strip():
            tolerance.reject(row.line, "no title")
        elif len(title) > LONGEST_TITLE:
            tolerance.reject(
                row.line, f"a title of {len(title)} characters, at most {LONGEST_TITLE} are allowed"
            )
        elif not isinstance(label, str) or label.strip().lower() not in labels:
            tolerance.reject(row.line, f"label {str(label)[:40]!r} is none of {', '.join(labels)}")
        else:
            tolerance.accept()
            yield title, labels.index(label.strip().lower())
