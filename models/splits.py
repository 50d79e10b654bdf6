"""The labelled sets of the news model and their fixed division into training, validation and test.

Twitter Financial News Sentiment keeps its official split: `valid` is our test. SEntFiN has none: the
headlines whose id has a SHA-256 divisible by ten are our test. Of the rest of both, the ids whose SHA-256 has
remainder one by ten validate. A text that a test part contains is in no other part.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LABELS = ("negative", "neutral", "positive")
TFNS_LABELS = ("negative", "positive", "neutral")  # 0 bearish, 1 bullish, 2 neutral
TFNS = "twitter-financial-news-sentiment"
SENTFIN = "sentfin"

_NOT_A_WORD = re.compile(r"https?://\S+|[^\w\s]|_")


@dataclass(frozen=True)
class Example:
    """One labelled text: `target` is a distribution over LABELS (one-hot but for headlines that disagree)."""

    id: str
    corpus: str
    text: str
    target: tuple[float, float, float]

    @property
    def label(self) -> int:
        """The index of the likeliest label."""
        return max(range(len(LABELS)), key=lambda i: self.target[i])


@dataclass(frozen=True)
class Splits:
    """Training, validation and test examples; no text of `test` is in the others."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]

    def digest(self) -> str:
        """SHA-256 over all training and validation examples: what the model was made of."""
        sha = hashlib.sha256()
        for example in (*self.train, *self.validation):
            sha.update(json.dumps([example.id, example.text, example.target]).encode())
        return sha.hexdigest()


def widened(splits: Splits) -> Splits:
    """The same with two thirds of the validation part in training: ids with remainder one by three still validate.

    A part of the validation part, so that models of either division can be compared on what is left.
    """
    left = [example for example in splits.validation if remainder(example.id, 3) == 1]
    given = [example for example in splits.validation if remainder(example.id, 3) != 1]
    return Splits([*splits.train, *given], left, splits.test)


def data_folder() -> Path:
    """`TAPEWATCH_DATA`, or `../shared/data` beside the checkout."""
    named = os.environ.get("TAPEWATCH_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def remainder(key: str, by: int = 10) -> int:
    """SHA-256 of `key` as a number, modulo `by`."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % by


def same_text(text: str) -> str:
    """What two texts have in common that differ only in case, links, punctuation and spacing."""
    return " ".join(_NOT_A_WORD.sub(" ", text).lower().split())


def official(data: Path) -> Splits:
    """The splits of the module's docstring; raises FileNotFoundError where a set is missing."""
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for part, example in (*_tfns(data / TFNS / "tweets.csv"), *_sentfin(data / SENTFIN / "sentfin.csv")):
        parts[part].append(example)
    return without_overlap(parts["train"], parts["validation"], parts["test"])


def without_overlap(train: list[Example], validation: list[Example], test: list[Example]) -> Splits:
    """Drop from validation what test contains, and from training what either contains."""
    tested = {same_text(example.text) for example in test}
    kept = [example for example in validation if same_text(example.text) not in tested]
    known = tested | {same_text(example.text) for example in kept}
    return Splits([e for e in train if same_text(e.text) not in known], kept, test)


def _tfns(path: Path) -> Iterator[tuple[str, Example]]:
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            example = Example(row["id"], TFNS, row["text"], one_hot(TFNS_LABELS[int(row["label"])]))
            if row["split"] == "valid":
                yield "test", example
            else:
                yield "validation" if remainder(row["id"]) == 1 else "train", example


def _sentfin(path: Path) -> Iterator[tuple[str, Example]]:
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            test, validation = remainder(row["id"]) == 0, remainder(row["id"]) == 1
            if row["headline_label"] != "mixed":
                part = "test" if test else "validation" if validation else "train"
                yield part, Example(row["id"], SENTFIN, row["title"], one_hot(row["headline_label"]))
            elif not test and not validation:
                yield "train", Example(row["id"], SENTFIN, row["title"], _shares(row["entity_sentiments"]))


def one_hot(label: str) -> tuple[float, float, float]:
    """All the weight on one label; raises ValueError for an unknown one."""
    if label not in LABELS:
        raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
    return (float(label == LABELS[0]), float(label == LABELS[1]), float(label == LABELS[2]))


def _shares(entity_sentiments: str) -> tuple[float, float, float]:
    """A headline whose entities disagree is as much of each label as they are."""
    found = list(json.loads(entity_sentiments).values())
    counts = [found.count(label) / len(found) for label in LABELS]
    return (counts[0], counts[1], counts[2])


def write_tests(folder: Path, data: Path | None = None) -> list[Path]:
    """Write the test parts of both sets as data files for `tapewatch evaluate news --data`; their paths."""
    test = official(data or data_folder()).test
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for corpus in (TFNS, SENTFIN):
        path = folder / f"{corpus}.test.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "title", "label"])
            rows.writerows([e.id, e.text, LABELS[e.label]] for e in test if e.corpus == corpus)
        written.append(path)
    return written
