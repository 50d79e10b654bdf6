"""Entities of a headline: the companies, indices, commodities and institutions that a gazetteer names.

A gazetteer is a CSV file with the header `symbol,name,aliases`; aliases are separated by `|`. The name is
an alias too. Case and accents do not matter, but for an alias of at most four characters, or one that is
written `=Visa`: that one must stand in the headline exactly so. An alias `$GOOG` is a further cashtag. The
symbol `-` is nobody: its aliases are phrases that only look like a name ("Visa rules"). Files that come
later win: they rename a symbol, add aliases to it, or take an alias from another.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ahocorasick  # type: ignore[import-not-found]

from streams.headlines.text import bare, normalise

GAZETTEER = Path(__file__).with_name("gazetteer.csv")
NOBODY = "-"
SHORT = 4  # characters up to which an alias must match by case
MOST_SYMBOLS = 32  # of a record that are read
_SYMBOL = re.compile(r"[A-Z0-9.\-:^=&_]{1,32}")
_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:[.\-][A-Za-z]{1,2})?)(?!\w)")
_LISTED = re.compile(
    r"(?<!\w)(?:NYSE(?:MKT| American)?|N(?:asdaq|ASDAQ)(?:GS|GM|CM)?|NSE|LON|ASX|TSX|TSE|HKG|ETR|EPA):\s?"
    r"([A-Z][A-Z0-9&]{0,9}(?:\.[A-Z]{1,2})?|\d{4,6})(?!\w)"
)
_NO_CASHTAGS = frozenset({"US", "USD", "EUR", "GBP", "BN", "MN", "MM"})  # "$US 5 bn" is an amount


class GazetteerError(ValueError):
    """A gazetteer cannot be used; the message is one line that names the file, the line and what to do."""


class Entity(NamedTuple):
    """Something that a headline is about."""

    symbol: str
    name: str


class Row(NamedTuple):
    """One row of a gazetteer."""

    symbol: str
    name: str
    aliases: tuple[str, ...]


class _Alias(NamedTuple):
    symbol: str
    written: str  # as it must stand in the headline, or empty where case does not matter


def load_gazetteer(paths: str = "") -> list[Row]:
    """The rows of the gazetteer that comes with Tapewatch, then those of the files in `paths` (as in PATH).

    Raises GazetteerError.
    """
    files = [GAZETTEER, *(Path(path).expanduser() for path in paths.split(os.pathsep) if path.strip())]
    return [row for file in files for row in read_rows(file)]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of one file. Raises GazetteerError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            if [cell.strip() for cell in next(table, [])] != ["symbol", "name", "aliases"]:
                raise GazetteerError(f"{path}: the first line is not 'symbol,name,aliases'; add that header")
            for cells in table:
                if any(cell.strip() for cell in cells):
                    yield _row(cells, f"{path}, line {table.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GazetteerError(f"{path}: cannot be read as a gazetteer: {error}") from None


def _row(cells: Sequence[str], place: str) -> Row:
    if len(cells) != 3:
        raise GazetteerError(f"{place}: {len(cells)} columns, not 3; quote a name that has a comma")
    symbol, name, aliases = cells[0].strip().upper(), normalise(cells[1]), cells[2]
    if not _SYMBOL.fullmatch(symbol):
        raise GazetteerError(f"{place}: {symbol!r} is no symbol; use up to 32 of A-Z 0-9 . - : ^ = & _")
    if not name and symbol != NOBODY:
        raise GazetteerError(f"{place}: {symbol} has no name; fill the second column")
    return Row(symbol, name, tuple(filter(None, (normalise(alias) for alias in aliases.split("|")))))


class Finder:
    """Finds the entities of headlines by an Aho-Corasick automaton over all aliases (`pyahocorasick`)."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._names: dict[str, str] = {}
        self._cashtags: dict[str, str] = {}
        aliases: dict[str, dict[str, str]] = {}
        for row in rows:
            self._add(row, aliases)
        self._automaton = ahocorasick.Automaton()
        for key, written in aliases.items():
            forms = [
                _Alias(symbol, form) for form, symbol in sorted(written.items(), reverse=True)
            ]  # "" last
            self._automaton.add_word(key, (len(key), forms))
        self._automaton.make_automaton()
        self._empty = not aliases

    def find(self, title: str, symbols: Sequence[str] = ()) -> list[Entity]:
        """The entities of a normalised title by first mention, after those of the record's own `symbols`.

        Symbols that are not valid are left out. Of names that overlap the first wins, then the longest.
        """
        found = dict.fromkeys(_valid(symbols)) if symbols else {}
        for symbol in self._mentions(title):
            found.setdefault(symbol)
        return [Entity(symbol, self._names.get(symbol, symbol)) for symbol in found]

    def _add(self, row: Row, aliases: dict[str, dict[str, str]]) -> None:
        if row.symbol != NOBODY:
            self._names[row.symbol] = row.name
        exact = {bare(alias[1:]) for alias in row.aliases if alias.startswith("=")}
        for alias in (row.name, *row.aliases):
            if alias.startswith("$"):
                self._cashtags[alias[1:].upper()] = row.symbol
                continue
            written = bare(alias.removeprefix("="))
            key = written.lower()
            if key:
                form = written if written in exact or len(key) <= SHORT else ""
                aliases[key] = {**(aliases.get(key, {}) if form else {}), form: row.symbol}

    def _mentions(self, title: str) -> list[str]:
        """The symbols that the title mentions, by place."""
        spans = list(self._tickers(title))
        text = bare(title)
        if not self._empty:
            spans += self._aliases(text, text.lower())
        if len(spans) > 1:
            spans.sort()
        mentions: list[str] = []
        end = 0
        for start, minus_end, symbol in spans:
            if start >= end:
                end = -minus_end
                if symbol != NOBODY:
                    mentions.append(symbol)
        return mentions

    def _tickers(self, title: str) -> Iterator[tuple[int, int, str]]:
        """Cashtags and `NYSE: BA`; a cashtag counts in lower case only where it is known."""
        if "$" in title:
            for found in _CASHTAG.finditer(title):
                ticker = found[1].upper()
                ticker = self._cashtags.get(ticker, ticker)
                if ticker not in _NO_CASHTAGS and (found[1].isupper() or ticker in self._names):
                    yield found.start(), -found.end(), ticker
        if ":" in title:
            for found in _LISTED.finditer(title):
                yield found.start(), -found.end(), self._cashtags.get(found[1], found[1])

    def _aliases(self, text: str, folded: str) -> Iterator[tuple[int, int, str]]:
        last = len(folded) - 1
        for place, (length, forms) in self._automaton.iter(folded):
            start = place - length + 1
            if place < last and _is_inside(folded[place], folded[place + 1]):
                continue
            if start and not _begins(folded[start - 1], folded[start]):
                continue
            written = text[start : place + 1]
            for alias in forms:
                if not alias.written or alias.written == written:
                    yield start, -(place + 1), alias.symbol
                    break


def _is_inside(char: str, following: str) -> bool:
    return following.isalnum() and char.isalnum()


def _begins(before: str, first: str) -> bool:
    """Whether a word begins: an amount such as `$3M` or `1.3M` is no name."""
    if first.isdigit():
        return before in " (\"'"
    return not (before.isalnum() or before in "$_")


def _valid(symbols: Sequence[str]) -> Iterator[str]:
    for symbol in symbols[:MOST_SYMBOLS]:
        name = symbol.strip().upper() if len(symbol) <= 64 else ""
        if _SYMBOL.fullmatch(name) and name != NOBODY:
            yield name
