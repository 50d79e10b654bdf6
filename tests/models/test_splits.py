"""The fixed division of the data sets, and that test texts stay out of training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from models.splits import (
    SENTFIN,
    TFNS,
    Example,
    official,
    one_hot,
    remainder,
    same_text,
    widened,
    without_overlap,
    write_tests,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / TFNS).mkdir()
    (tmp_path / SENTFIN).mkdir()
    with (tmp_path / TFNS / "tweets.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label", "split", "label_name"])
        rows.writerows(
            [f"t{i}", f"tweet number {i}", i % 3, "valid" if i % 5 == 0 else "train", ""] for i in range(50)
        )
        rows.writerow(["copy", "Tweet, number 5! https://t.co/x", 1, "train", ""])
    with (tmp_path / SENTFIN / "sentfin.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "entity_sentiments", "n_entities", "headline_label"])
        for i in range(200):
            towards = {"A": "negative", "B": "positive"} if i % 4 == 0 else {"A": "neutral"}
            label = "mixed" if i % 4 == 0 else "neutral"
            rows.writerow([f"s{i}", f"headline number {i}", json.dumps(towards), len(towards), label])
    return tmp_path


def test_every_part_is_what_the_rule_says(data: Path) -> None:
    """Official split and hash decide; headlines that disagree with themselves only train, by halves."""
    splits = official(data)
    assert {e.id for e in splits.test if e.corpus == TFNS} == {f"t{i}" for i in range(0, 50, 5)}
    assert all(remainder(e.id) == 0 for e in splits.test if e.corpus == SENTFIN)
    assert all(remainder(e.id) == 1 for e in splits.validation)
    assert all(remainder(e.id) > 1 for e in splits.train if e.corpus == SENTFIN)
    assert {e.target for e in splits.train if int(e.id[1:]) % 4 == 0 and e.corpus == SENTFIN} == {
        (0.5, 0.0, 0.5)
    }
    assert all(max(e.target) == 1 for e in (*splits.test, *splits.validation))


def test_no_test_text_is_trained_on(data: Path) -> None:
    """A training text that differs from a test text in case, links and punctuation only is dropped."""
    splits = official(data)
    assert "copy" not in {e.id for e in (*splits.train, *splits.validation)}
    tested = {same_text(e.text) for e in splits.test}
    assert not tested & {same_text(e.text) for e in (*splits.train, *splits.validation)}


def test_no_validation_text_is_trained_on() -> None:
    """Validation judges what was not trained on."""
    twins = [Example(str(i), "c", text, one_hot("neutral")) for i, text in enumerate(["A b", "a, B", "c"])]
    splits = without_overlap(twins[:1] + twins[2:], twins[1:2], [])
    assert [e.id for e in splits.train] == ["2"]


def test_a_third_of_validation_goes_on_validating(data: Path) -> None:
    """Widening moves two thirds of the validation part to training, by hash, and leaves the test part alone."""
    before = official(data)
    after = widened(before)
    assert after.validation == [e for e in before.validation if remainder(e.id, 30) == 1]
    assert 0 < len(after.validation) < len(before.validation)
    moved = {e.id for e in before.validation} - {e.id for e in after.validation}
    assert {e.id for e in after.train} == {e.id for e in before.train} | moved
    assert after.test == before.test


def test_the_digest_tells_the_data(data: Path) -> None:
    """Equal data has an equal digest, and one changed label another."""
    before = official(data).digest()
    assert official(data).digest() == before
    path = data / TFNS / "tweets.csv"
    path.write_text(path.read_text().replace("number 4,1", "number 4,0"))
    assert official(data).digest() != before


def test_the_test_parts_are_written_as_data_files(data: Path, tmp_path: Path) -> None:
    """One CSV a corpus, with the columns that `evaluate news` reads."""
    for path in write_tests(tmp_path / "out", data):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert set(rows[0]) == {"id", "title", "label"}
        assert {row["label"] for row in rows} <= {"negative", "neutral", "positive"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{SENTFIN}.test.csv",
        f"{TFNS}.test.csv",
    ]


def test_an_unknown_label_is_refused() -> None:
    """A label outside the three is named."""
    with pytest.raises(ValueError, match="'bullish' is none of"):
        one_hot("bullish")
