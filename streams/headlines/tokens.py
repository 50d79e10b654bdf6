"""A headline as a bag of weighted tokens: what two copies of one story have in common whatever the outlet's style.

Numbers take their unit with them (`Rs 1,200 crore` is `1200cr`, `3 per cent` is `3%`), quarters are one token, words
are stemmed lightly, words for a rise or a fall become one token each. A token knows its kind, because a name, a
number or a direction that differs makes another story. Weights are inverse document frequencies over the headlines
that `models/build_vocabulary.py` read.
"""

from __future__ import annotations

import math
import re
import zlib
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from streams.headlines import lexicon
from streams.headlines.lexicon import DOWN, FACT, NAME, NOT, UP, WORD, stem
from streams.headlines.text import bare

VOCABULARY = Path(__file__).with_name("vocabulary.tsv")
MOST = 48  # tokens of a headline that count
SCALE = 20  # weights are whole numbers: the natural logarithm times this
_MOST_FACT = 6 * SCALE  # a number is rare, yet says less than a rare word

_LINK = re.compile(r"https?:/\S*|\bwww\.\S+|\bpic\.twitter\S*|(?<!\w)@\w+")
_BEFORE = re.compile(
    r"^(?:(?:update|wrapup|brief|rpt|refile|corrected|correction|exclusive|breaking|watch|live|video|just in|"
    r"news highlights|top news)\s*\d*\s*[-:|]\s*)+",
    re.I,
)
_AFTER = re.compile(
    r"(?:\s[-|]+ ?| ?\(| via )(?:reuters|bloomberg|cnbc|wsj|ft|ap|afp|dj|pti|ians|mint|et|et now|economic times|"
    r"the economic times|business standard|marketwatch|seeking alpha|thestreet|benzinga|yahoo finance|"
    r"marketscreener|sources?|reports?|update|video)\)?$",
    re.I,
)
_TAIL = 40  # characters at the end in which an outlet may be named
_TOKEN = re.compile(
    r"(?P<word>[^\W\d_][^\W_]*(?:[.&'][^\W_]+)*)"
    r"|(?P<number>\d[\d,]*(?:\.\d+)?)(?:[\s-]?(?P<unit>%|per\s?cent|percent|pct|pc|bps|basis points?|crores?|crs?|"
    r"lakhs?|lakh|billions?|bln|bn|millions?|mln|mn|m|b|trillions?|trln|tn|k|st|nd|rd|th)(?!\w)|(?P<tail>[a-z]\w*))?",
    re.I,
)
_QUARTER = re.compile(r"\b(first|second|third|fourth)[ -]quarter\b|\b([1-4])q\b", re.I)
_UNITS = {
    **dict.fromkeys(("%", "percent", "pct", "pc"), "%"),
    **dict.fromkeys(("bps", "basispoint", "basispoints"), "bps"),
    **dict.fromkeys(("crore", "crores", "cr", "crs"), "cr"),
    **dict.fromkeys(("lakh", "lakhs"), "lakh"),
    **dict.fromkeys(("billion", "billions", "bln", "bn", "b"), "bn"),
    **dict.fromkeys(("million", "millions", "mln", "mn", "m"), "mn"),
    **dict.fromkeys(("trillion", "trillions", "trln", "tn"), "tn"),
    "k": "k",
}
_QUARTERS = {"first": "q1", "second": "q2", "third": "q3", "fourth": "q4"}


class Token(NamedTuple):
    """One token of a headline."""

    text: str
    digest: bytes  # four bytes (CRC-32): enough to tell the tokens of two headlines apart
    weight: int  # 1..255
    kind: int


class Vocabulary:
    """How often the tokens of headlines occur, and which of them are names."""

    def __init__(self, headlines: int, frequencies: dict[str, int], names: frozenset[str]) -> None:
        self._headlines = headlines
        self._frequencies = frequencies
        self._names = names
        self._lexicon = lexicon.table()
        self._stop, self._weekdays = lexicon.stop_words(), lexicon.weekdays()
        self._of_word = lru_cache(65_536)(self._word_token)

    def tokens(self, title: str) -> list[Token]:
        """The distinct tokens of a normalised title, in order, at most `MOST`."""
        text = _QUARTER.sub(_quarter, trim(bare(title)))
        found: dict[str, Token] = {}
        for match in _TOKEN.finditer(text):
            word = match["word"]
            token = self._of_word(word.lower(), word[0].isupper()) if word else self._fact_token(match)
            if token and token.text in found and token.kind in (UP, DOWN):
                token = _again(token)  # "misses on profit, misses on revenue" is not "misses, beats"
            if token and token.text not in found:
                found[token.text] = token
                if len(found) == MOST:
                    break
        return list(found.values())

    def _weight(self, text: str) -> int:
        frequency = self._frequencies.get(text, 0)
        return max(1, min(255, round(SCALE * math.log((self._headlines + 1) / (frequency + 0.5)))))

    def _token(self, text: str, kind: int) -> Token:
        weight = self._weight(text)
        if kind == FACT:
            weight = min(weight, SCALE if text in self._weekdays else _MOST_FACT)
        return Token(text, _digest(text), weight, kind)

    def _word_token(self, word: str, capital: bool) -> Token | None:
        if word.endswith("n't"):
            return self._token("not", NOT)
        word = word.removesuffix("'s").removesuffix(".com").replace(".", "").replace("'", "")
        if not word or word in self._stop:
            return None
        if word in self._lexicon:
            return self._token(*self._lexicon[word])
        root = stem(word)
        if root in self._lexicon:
            return self._token(*self._lexicon[root])
        if len(word) == 1 or any(char.isdigit() for char in word):
            return self._token(word, FACT)
        if root in self._names or (capital and root not in self._frequencies):
            return self._token(root, NAME)
        return self._token(root, WORD)

    def _fact_token(self, match: re.Match[str]) -> Token:
        number = match["number"].replace(",", "")
        if "." in number:
            number = number.rstrip("0").rstrip(".")
        unit = re.sub(r"\s", "", (match["unit"] or "").lower())
        return self._token(f"{number}{_UNITS.get(unit, '')}{(match['tail'] or '').lower()}", FACT)


def _again(token: Token) -> Token:
    text = token.text + "'"
    return token._replace(text=text, digest=_digest(text))


def _digest(text: str) -> bytes:
    return zlib.crc32(text.encode()).to_bytes(4, "big")


def _quarter(found: re.Match[str]) -> str:
    return _QUARTERS[found[1].lower()] if found[1] else f"q{found[2]}"


def trim(text: str) -> str:
    """The text without links, handles, a cut last word, and what outlets put before and after a headline."""
    if "http" in text or "@" in text or "www." in text or "pic.twitter" in text:
        text = _LINK.sub(" ", text).strip()
    if text.endswith("..."):
        text = text.rstrip(".")
        text = text.rstrip() if text.endswith(" ") else text.rpartition(" ")[0] or text
    found = _AFTER.search(text, max(0, len(text) - _TAIL))
    return _BEFORE.sub("", text[: found.start()] if found else text)


@cache
def load_vocabulary(path: Path = VOCABULARY) -> Vocabulary:
    """The vocabulary that comes with Tapewatch: a first line with the number of headlines, then `token,
    count, kind`."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return Vocabulary(
        int(first.rpartition("\t")[2]),
        {row[0]: int(row[1]) for row in rows},
        frozenset(row[0] for row in rows if row[2:] == ["name"]),
    )
