"""Credit scoring: applications in, probabilities of default, points and reasons out. No broker, no state.

A bundle brings its columns, trees, and a scorecard: points for each bin of each column, as lenders read them (Siddiqi,
Credit Risk Scorecards, 2006: weights of evidence, a logistic regression of them, DOUBLE points for twice the odds).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle, BundleError, active_folder, open_bundle
from engines.parts import open_part
from engines.shapley import Explainer, load
from streams.launch.rows import Tolerance, read_rows
from streams.settings import Settings

COLUMNS, SCORECARD, LEAVES = "columns.json", "scorecard.json", "leaves.npz"
MISSING = -1e9  # stands for a value that is not there; a split can tell it from all others
BLANK = ("", "na", "nan", "null", "none")
TOP = 5  # columns named as reasons
BASE_POINTS, BASE_ODDS, DOUBLE = 600.0, 50.0, 20.0  # 600 points at 50 good to 1 bad
CHUNK = 1024


class Column(msgspec.Struct, frozen=True):
    """A column that the model reads; `levels` of a category in order of rising risk."""

    name: str
    kind: Literal["number", "category"]
    levels: tuple[str, ...] = ()
    missing: bool = False  # whether a value may be missing: it was in training


class Bin(msgspec.Struct, frozen=True):
    """A line of the scorecard: encoded values in (above, upto]; `good` and `bad` are training applications."""

    column: str
    label: str
    above: float
    upto: float
    good: int
    bad: int
    evidence: float  # weight of evidence: log of the share of good over the share of bad
    points: float


class WrongRow(Exception):
    """An application lacks a column, or has a value that the column cannot have; the message says which."""


def encode(columns: Sequence[Column], row: Mapping[str, Any]) -> list[float]:
    """A row's values as numbers, in the order of the columns. Raises WrongRow."""
    found = []
    for column in columns:
        if column.name not in row:
            raise WrongRow(f"no column {column.name!r}; the model needs {', '.join(c.name for c in columns)}")
        text = str("" if row[column.name] is None else row[column.name]).strip()
        if text.lower() in BLANK:
            if not column.missing:
                raise WrongRow(f"{column.name} is empty, and never was in training")
            found.append(MISSING)
        elif column.kind == "category":
            if text not in column.levels:
                raise WrongRow(f"{column.name} {text[:40]!r} is none of {', '.join(column.levels)}")
            found.append(float(column.levels.index(text)))
        else:
            found.append(number(column.name, text))
    return found


def number(name: str, text: str) -> float:
    """A finite number within float32's range; raises WrongRow."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e30:
        raise WrongRow(f"{name} {text[:40]!r} is not a number")
    return value


class CreditModel:
    """A credit bundle, opened."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Raises BundleError or EngineError, one line."""
        try:
            self.columns = msgspec.json.decode(bundle.read(COLUMNS), type=list[Column])
            self.scorecard = msgspec.json.decode(bundle.read(SCORECARD), type=list[Bin])
        except msgspec.DecodeError as error:
            raise BundleError(f"{bundle.folder}: {error}") from None
        self._explainer = Explainer(load(bundle.read(LEAVES)), len(self.columns))
        self._trees = open_part(bundle, "trees", "auto", len(self.columns), threads)
        self.model, self.engine = bundle.model, self._trees.name()

    def odds(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-odds of default [n] of encoded rows [n, columns]."""
        return self._trees.infer({"features": rows})[:, 0].astype(np.float64)

    def points(self, row: Sequence[float]) -> int:
        """The scorecard's points of an encoded row."""
        found = 0.0
        for column, value in zip(self.columns, row, strict=True):
            bins = [one for one in self.scorecard if one.column == column.name]
            found += next((one.points for one in bins if one.above < value <= one.upto), 0.0)
        return round(found)

    def reasons(self, row: NDArray[np.float32], odds: float, data: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What adds up to the log-odds: the columns that weigh most, `other_features`, and `base`."""
        parts = self._explainer.contributions(row)
        top = [int(i) for i in np.argsort(-np.abs(parts), kind="stable")[:TOP] if parts[i] != 0]
        rest = odds - self._explainer.base - float(parts[top].sum())
        named = [(self.columns[i].name, data[self.columns[i].name], float(parts[i])) for i in top]
        named += [("other_features", 0.0, rest), ("base", 0.0, self._explainer.base)]
        return [
            {"feature": name, "value": value, "contribution": round(part, 6)} for name, value, part in named
        ]

    def close(self) -> None:
        """Give the engine back."""
        self._trees.close()


def score(settings: Settings, path: str, mapping: Mapping[str, str], out: TextIO) -> None:
    """What `tapewatch score credit FILE` does: one JSON line for each good row, in order.

    Wrong rows are reported with their line. Raises DataFileError, BundleError or EngineError, one line each.
    """
    model = CreditModel(open_bundle(active_folder(settings.bundles, "credit")))
    tolerance = Tolerance(path, sys.stderr)
    try:
        for lines in _chunks(path, mapping, model.columns, tolerance):
            encoded = np.array([values for _, _, values in lines], np.float32)
            for (name, data, values), row, odds in zip(lines, encoded, model.odds(encoded), strict=True):
                found = {
                    "id": name,
                    "score": round(1 / (1 + math.exp(-odds)), 6),
                    "points": model.points(values),
                    "reasons": model.reasons(row, float(odds), data),
                    "model": model.model,
                    "engine": model.engine,
                }
                out.write(json.dumps(found, ensure_ascii=False) + "\n")
    finally:
        model.close()
    tolerance.judge()


def _chunks(
    path: str, mapping: Mapping[str, str], columns: Sequence[Column], tolerance: Tolerance
) -> Iterator[list[tuple[str, dict[str, Any], list[float]]]]:
    waiting = []
    for row in read_rows(path, mapping):
        try:
            if row.data is None:
                raise WrongRow(row.error)
            waiting.append((identity(row.data, row.line), row.data, encode(columns, row.data)))
        except WrongRow as error:
            tolerance.reject(row.line, str(error))
            continue
        tolerance.accept()
        if len(waiting) == CHUNK:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def identity(row: Mapping[str, Any], line: int) -> str:
    """The row's id (a column `id` in any case), or its line's number."""
    return next((str(value) for name, value in row.items() if name.lower() == "id" and value), str(line))


def scorecard(settings: Settings, bundle: str | None) -> list[dict[str, Any]]:
    """What `tapewatch scorecard` prints: points for each bin of each column."""
    folder = Path(bundle) if bundle else active_folder(settings.bundles, "credit")
    opened = open_bundle(folder)
    if SCORECARD not in opened.manifest.files:
        raise BundleError(f"{opened.model} has no scorecard")
    bins = msgspec.json.decode(opened.read(SCORECARD), type=list[Bin])
    return [
        {
            "column": one.column,
            "values": one.label,
            "points": round(one.points, 1),
            "good": one.good,
            "bad": one.bad,
            "bad_rate": round(one.bad / max(1, one.good + one.bad), 4),
        }
        for one in bins
    ]


def bin_label(column: Column, above: float, upto: float) -> str:
    """The values of a bin, as a reader says them."""
    if column.kind == "category":
        named = [name for index, name in enumerate(column.levels) if above < index <= upto]
        return ", ".join((["missing"] if above < MISSING <= upto else []) + named)
    if upto <= MISSING:
        return "missing"
    if math.isinf(above) or above <= MISSING:
        return "any" if math.isinf(upto) else f"up to {upto:g}"
    return f"above {above:g}" if math.isinf(upto) else f"{above:g} to {upto:g}"


def edges_to_bins(edges: Sequence[float]) -> list[tuple[float, float]]:
    """(above, upto] pairs that cover all numbers."""
    return list(pairwise([-math.inf, *edges, math.inf]))
