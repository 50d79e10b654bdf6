"""Finding the entities of a headline."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.headlines.entities import (
    GAZETTEER,
    NOBODY,
    Entity,
    Finder,
    GazetteerError,
    Row,
    load_gazetteer,
    read_rows,
)
from streams.headlines.text import fold, normalise


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder(load_gazetteer())


@pytest.mark.parametrize(
    ("title", "symbols"),
    [
        ("Apple's iPhone sales beat estimates", ["AAPL"]),
        ("Farmers say apple harvest is late", []),
        ("Target price raised for Gap Inc", ["GPS"]),
        ("Gap up opening seen; visa rules eased", []),
        ("Visa and Mastercard rise", ["V", "MA"]),
        ("$3M raised by start-up; 3M cuts outlook", ["MMM"]),
        ("Reliance Capital falls, Reliance gains on Reliance Jio", ["RELCAPITAL", "RELIANCE", "RJIO"]),
        ("AT&T and M&M against L&T", ["T", "M&M", "LT"]),
        ("S&P 500 and Nifty50 slip", ["SPX", "NIFTY"]),
        ("Nestlé and NESTLE", ["NSRGY"]),
        ("Boeing (NYSE: BA) falls", ["BA"]),
        ("Shares of Unheard Corp (NASDAQ:UNHD) halted as Nasdaq slides", ["UNHD", "IXIC"]),
        ("$TSLA slides, $ZZYX halted", ["TSLA", "ZZYX"]),
        ("$tsla up, $zzyx unknown in lower case", ["TSLA"]),
        ("$GOOG to pay fine", ["GOOGL"]),
        ("Loan of $US 5 bn", []),
        ("Infosys-led rally lifts the non-Infosys names", ["INFY"]),
        ("Teslas are not Tesla2", []),
    ],
)
def test_finds(finder: Finder, title: str, symbols: list[str]) -> None:
    """Names are found on word boundaries, the longest first, doubtful ones by their case alone."""
    assert [entity.symbol for entity in finder.find(title)] == symbols


def test_own_symbols_come_first(finder: Finder) -> None:
    """The record's own symbols lead, upper-cased and named; invalid ones are left out, none comes twice."""
    own = [" tsla", "ACME", "no good", "x" * 33, "é", "", "-"]
    expected = [Entity("TSLA", "Tesla"), Entity("ACME", "ACME"), Entity("BA", "Boeing")]
    assert finder.find("Boeing and Tesla", own) == expected


def test_at_most_32_own_symbols(finder: Finder) -> None:
    """Of a record's own symbols the first 32 count."""
    assert len(finder.find("", [f"S{number}" for number in range(100)])) == 32


def test_a_user_file_extends_and_overrides(tmp_path: Path) -> None:
    """A later file renames a symbol, adds aliases to it, takes an alias from another, and adds companies."""
    mine = tmp_path / "mine.csv"
    rows = ["TSLA,Tesla Motors,Elon's firm", "EVCO,EV Co,=Tesla", "acme,Acme Corp,"]
    mine.write_text("\n".join(["symbol,name,aliases", *rows]))
    finder = Finder(load_gazetteer(os.pathsep.join([str(mine), ""])))
    assert finder.find("Elon's firm and Acme Corp") == [
        Entity("TSLA", "Tesla Motors"),
        Entity("ACME", "Acme Corp"),
    ]
    assert [entity.symbol for entity in finder.find("Tesla, TESLA, Apple")] == ["EVCO", "TSLA", "AAPL"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the first line is not"),
        ("symbol,name,aliases\nA B,Name,\n", "line 2: 'A B' is no symbol"),
        ("symbol,name,aliases\nAB,Name\n", "line 2: 2 columns"),
        ("symbol,name,aliases\nAB,,x\n", "line 2: AB has no name"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    """An unusable gazetteer is refused with its file, line and reason in one line."""
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(GazetteerError, match=message) as refused:
        list(read_rows(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A gazetteer that is not there is named."""
    with pytest.raises(GazetteerError, match=r"none\.csv"):
        load_gazetteer(str(tmp_path / "none.csv"))


def test_the_shipped_gazetteer_is_unambiguous() -> None:
    """Each symbol stands once and each alias belongs to one symbol; there are at least 300 entities."""
    rows = list(read_rows(GAZETTEER))
    symbols = Counter(row.symbol for row in rows if row.symbol != NOBODY)
    assert len(symbols) >= 300
    assert [symbol for symbol, times in symbols.items() if times > 1] == []
    owners: dict[str, set[str]] = {}
    for row in rows:
        for alias in filter(None, (row.name, *row.aliases)):
            owners.setdefault(alias if alias.startswith("=") else fold(alias), set()).add(row.symbol)
    assert {alias: found for alias, found in owners.items() if len(found) > 1} == {}


def test_each_name_is_found(finder: Finder) -> None:
    """The name of each shipped entity, as a headline, finds that entity."""
    rows = [row for row in read_rows(GAZETTEER) if row.symbol != NOBODY]
    missed = {
        row.symbol for row in rows if finder.find(f"{row.name} falls") != [Entity(row.symbol, row.name)]
    }
    assert missed == set()


def test_an_empty_gazetteer_finds_cashtags() -> None:
    """Without any row only cashtags and own symbols are found."""
    assert [entity.symbol for entity in Finder([]).find("Apple $AAPL", ["X"])] == ["X", "AAPL"]


@given(st.text(max_size=200), st.lists(st.text(max_size=70), max_size=40))
def test_any_text_is_searched(title: str, symbols: list[str]) -> None:
    """Any title and any symbols give valid, distinct entities."""
    finder = Finder([Row("AB", "a", ("ß", "İ")), Row("-", "", ("ab",))])
    found = [entity.symbol for entity in finder.find(normalise(title), symbols)]
    assert len(found) == len(set(found))
    assert all(0 < len(symbol) <= 32 and symbol == symbol.upper() for symbol in found)
