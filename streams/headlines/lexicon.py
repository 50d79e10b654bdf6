"""What words of headlines mean for telling stories apart: stop words, words that outlets exchange, directions, dates.

Everything is looked up by stem; `table` says which token a word becomes and of which kind that token is.
"""

from __future__ import annotations

WORD, NAME, FACT, UP, DOWN, NOT = range(6)  # kinds; a fact is a number, a quarter, a date, open or close

_STOP = (
    "a an the to of in on at for and or is are be by with from as its it this that these has have will was were s rs "
    "re inr usd per via amid today now here again also just still yet after following"
)
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
_DATES = (
    "january february march april may june july august september october november december jan feb mar apr jun jul "
    "aug sep sept oct nov dec open opening start close closing end ended midday intraday premarket morning afternoon "
    "annual monthly weekly quarterly yearly"
)
# Words that outlets exchange for one another, a group a line.
_SAME = """
report post
result number
say state
buy acquire purchase
company firm
share stock
deal pact agreement
name appoint
launch unveil introduce
due because
set likely poised
plan intend
see expect
talk negotiation
unit arm subsidiary
chief head
govt government
big large
win secure bag
crore cr
billion bn
million mn
pc percent
probe investigation
ask urge
warn caution
worry concern fear
"""
_PLACES = """
india indian
china chinese
us american
uk british britain
europe european eu
japan japanese
russia russian
germany german
france french
canada canadian
australia australian
"""
_MOVES_UP = (
    "up rise rose risen gain climb jump surge soar rally advance zoom spurt rebound higher increase grow grew"
)
_MOVES_DOWN = (
    "down fall fell fallen drop slip slump slide slid tumble plunge decline sink sank lower dip crash skid shed "
    "plummet tank nosedive decrease shrink shrank"
)
_UPS = (
    "beat top raise hike boost upgrade profit buy bull bullish positive strong win won approve above overweight "
    "outperform high more upbeat accept add clear recover record better best upside green exceed over optimistic"
)
_DOWNS = (
    "miss cut slash trim reduce downgrade loss sell bear bearish negative weak lose lost reject below underweight "
    "underperform low less gloomy deny remove block worsen worse worst downside red lag under pessimistic weigh"
)
_NOT = "not no never without cannot unlikely"
_COUNTED = "zero one two three four five six seven eight nine ten eleven twelve"
_ORDERED = "first second third fourth fifth"


def stop_words() -> frozenset[str]:
    """Words that say nothing about the story."""
    return frozenset(_STOP.split())


def weekdays() -> frozenset[str]:
    """Days that outlets add or leave out, as tokens."""
    return frozenset(stem(word) for word in _WEEKDAYS.split())


def table() -> dict[str, tuple[str, int]]:
    """Stem -> token and kind, for the words whose meaning decides whether two headlines say the same."""
    found = {
        stem(word): (stem(line.split()[0]), WORD) for line in _SAME.splitlines() for word in line.split()
    }
    found |= {stem(word): (line.split()[0], NAME) for line in _PLACES.splitlines() for word in line.split()}
    for words, kind in ((_WEEKDAYS, FACT), (_DATES, FACT), (_UPS, UP), (_DOWNS, DOWN)):
        found |= {stem(word): (stem(word), kind) for word in words.split()}
    for words, token, kind in ((_MOVES_UP, "+", UP), (_MOVES_DOWN, "~", DOWN), (_NOT, "not", NOT)):
        found |= {stem(word): (token, kind) for word in words.split()}
    found |= {word: (str(number), FACT) for number, word in enumerate(_COUNTED.split())}
    return found | {word: (f"{number}.", FACT) for number, word in enumerate(_ORDERED.split(), 1)}


def stem(word: str) -> str:
    """The word without its most common endings; the same for `rise`, `rises` and `rising`."""
    if len(word) <= 3:
        return word
    if word.endswith(("ies", "ied")) and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("ing") and len(word) > 5:
        word = _undouble(word[:-3])
    elif word.endswith("ed") and len(word) > 4:
        word = _undouble(word[:-2])
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _undouble(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls" else word
