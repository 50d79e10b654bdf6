"""What the bundled sample promises to `tapewatch up`."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import pytest

from models.splits import data_folder, official, same_text
from streams.headlines.entities import Finder, load_gazetteer
from streams.headlines.stories import Memory, prepare
from streams.headlines.text import normalise
from streams.launch.play_news import SAMPLES, load

SURGE, WINDOW = 5, 300.0  # the contract's rule: stories about an entity, in seconds
PLANNED = {"BA", "UBER", "INFY", "HD", "RANBAXY", "M", "WIPRO"}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return load("news")[0]


@pytest.fixture(scope="module")
def live_from() -> int:
    return load("news")[1]


@pytest.fixture(scope="module")
def symbols(rows: list[Row]) -> list[list[str]]:
    finder = Finder(load_gazetteer())
    return [[entity.symbol for entity in finder.find(row["title"])] for row in rows]


def crowded(rows: Sequence[Row], symbols: Sequence[list[str]]) -> set[str]:
    """The entities with so many headlines in a window that a surge is possible, whatever the model thinks."""
    now, found = 0.0, set()
    times: dict[str, deque[float]] = defaultdict(deque)
    for row, named in zip(rows, symbols, strict=True):
        now += row["gap"]
        for symbol in named:
            met = times[symbol]
            met.append(now)
            while met[0] < now - WINDOW:
                met.popleft()
            if len(met) >= SURGE:
                found.add(symbol)
    return found


def test_records_are_clean(rows: list[Row]) -> None:
    """Each record has the fields of a headline, a normalised title without a link, and a gap."""
    assert all(set(row) == {"gap", "title", "source", "symbols", "lang"} for row in rows)
    assert [
        row["title"] for row in rows if normalise(row["title"]) != row["title"] or "http" in row["title"]
    ] == []
    assert all(0 < row["gap"] <= 30 for row in rows)
    assert len({row["source"] for row in rows}) == 12


def test_a_loop_is_longer_than_the_memory_of_stories(rows: list[Row]) -> None:
    """A loop takes longer than six hours, at a headline each three seconds or so."""
    seconds = sum(row["gap"] for row in rows)
    assert seconds > 6.5 * 3600
    assert 2.7 < seconds / len(rows) < 3.3


def test_the_history_is_calm(rows: list[Row], symbols: list[list[str]], live_from: int) -> None:
    """No entity has five headlines in five minutes of the history, which lasts three hours at its own pace."""
    assert crowded(rows[:live_from], symbols[:live_from]) == set()
    assert 0.9 < sum(row["gap"] for row in rows[:live_from]) / (3 * 3600) < 1.1


def test_the_bad_day_begins_at_once(rows: list[Row], symbols: list[list[str]], live_from: int) -> None:
    """Within 45 s of the live part ten distinct stories about one company have come, with other news between."""
    memory, now, stories, others = Memory(6.0), 0.0, 0, 0
    for at in range(live_from, len(rows)):
        now += rows[at]["gap"]
        if now > 45:
            break
        first = memory.assign(prepare(str(at), rows[at]["title"], symbols[at]), 0, 0)[1]
        stories += "BA" in symbols[at] and first is None
        others += "BA" not in symbols[at]
    assert stories >= 10
    assert others >= 5


def test_only_planned_surges_are_possible(rows: list[Row], symbols: list[list[str]]) -> None:
    """Over two loops, so over the seam too, only the companies with a planned rough patch can surge."""
    assert crowded([*rows, *rows], [*symbols, *symbols]) == PLANNED


def test_some_stories_are_syndicated(rows: list[Row], symbols: list[list[str]]) -> None:
    """About six in a hundred stories are repeated by other outlets, one to three times."""
    memory = Memory(1000.0)
    copies: dict[str, int] = defaultdict(int)
    stories = 0
    for at, row in enumerate(rows):
        first = memory.assign(prepare(str(at), row["title"], symbols[at]), 0, 0)[1]
        stories += first is None
        if first is not None:
            copies[first] += 1
            assert row["source"] != rows[int(first)]["source"] or copies[first] > 1
    assert 0.045 < len(copies) / stories < 0.075
    assert max(copies.values()) <= 4


def test_the_notice_stands_beside_it(rows: list[Row]) -> None:
    """The file beside the sample says what it is, its licence, and how long it is."""
    meta = json.loads((SAMPLES / "news.meta.json").read_text(encoding="utf-8"))
    assert (meta["licence"], meta["records"]) == ("MIT", len(rows))
    assert "made up" in meta["what"]


def test_no_test_headline_is_in_it(rows: list[Row]) -> None:
    """No headline of the sets' test parts was used."""
    if not (data_folder() / "sentfin").exists():
        pytest.skip("the data sets are not beside the checkout")
    kept_back = {same_text(example.text) for example in official(data_folder()).test}
    assert [row["title"] for row in rows if same_text(row["title"]) in kept_back] == []


def test_it_is_rebuilt_byte_for_byte(rows: list[Row]) -> None:
    """The build script makes this sample from the sets."""
    if not (data_folder() / "sentfin").exists():
        pytest.skip("the data sets are not beside the checkout")
    from models.build_sample import build

    assert build() == rows
    with gzip.open(SAMPLES / "news.jsonl.gz") as file:
        assert len(file.read().splitlines()) == len(rows)
