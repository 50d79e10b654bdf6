"""Near-duplicate stories: a syndicated headline counts once.

`prepare` makes the small thing that the store compares. The store's side is `assign_story` in stories.lua; `Memory` is
the same in Python, for tests and measurements. How: the five rarest tokens of a headline find at most six earlier ones,
which must share 40 % of the weight of those five. Each is verified by hard rules (a name, a number or a date left over
on both sides, a direction turned round, a negation, other entities: another story) and by a logistic regression over a
few overlaps. Copies are compared with the first headline of a story only, so that no story drifts. Precision goes
first: two stories taken for one hide news, one taken for two is counted twice.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from streams.headlines.lexicon import DOWN, FACT, NAME, NOT, UP
from streams.headlines.tokens import load_vocabulary

BLOCKING = 5  # rarest tokens that a candidate is found by
POSTINGS = 64  # headlines a token remembers, the newest
CANDIDATES = 6  # that are verified
BLOCKING_SHARE = 0.4  # of the weight of the rarest tokens that a candidate must share
SHORTEST = 3  # tokens below which only the same tokens are the same story
ENTITIES = 16  # of a headline that are compared
KINDS = 6  # of tokens
# Fitted by `python -m tests.benchmarks.stories --fit`; the same numbers stand in stories.lua.
COEFFICIENTS = (-2.271, 5.62, 1.548, -1.999, -3.219, -1.355, 0.569, -1.463, -0.507)
THRESHOLD = 0.85
LEAST_LOGIT = math.log(THRESHOLD / (1 - THRESHOLD))


class Comparison(NamedTuple):
    """Two headlines side by side: whether a hard rule parts them, and the overlaps that the regression
    reads."""

    conflict: bool
    features: tuple[float, ...]

    def logit(self) -> float:
        """The regression's log odds that both are one story."""
        total = COEFFICIENTS[0]
        for coefficient, feature in zip(COEFFICIENTS[1:], self.features, strict=True):
            total += coefficient * feature
        return total


def prepare(record_id: str, title: str, symbols: Sequence[str]) -> dict[str, Any]:
    """What `assign_story` needs of a normalised title with the symbols of its entities; about 130 bytes as msgpack.

    `tok`: six bytes a token in the order of the title: CRC-32, weight, kind. `blk`: the four-byte CRC-32 of the rarest
    tokens. `ent`: the same of the symbols, sorted.
    """
    tokens = load_vocabulary().tokens(title)
    rarest = sorted(tokens, key=lambda token: (-token.weight, token.digest))[:BLOCKING]
    entities = sorted({zlib.crc32(symbol.encode()).to_bytes(4, "big") for symbol in symbols})[:ENTITIES]
    return {
        "id": record_id,
        "tok": b"".join(token.digest + bytes((token.weight, token.kind)) for token in tokens),
        "blk": b"".join(token.digest for token in rarest),
        "ent": b"".join(entities),
    }


class Headline(NamedTuple):
    """A prepared headline, unpacked: tokens as digest -> (weight, kind) in order, digests of the rarest
    and of entities."""

    tokens: dict[bytes, tuple[int, int]]
    rarest: tuple[bytes, ...]
    entities: frozenset[bytes]


def unpack(item: dict[str, Any]) -> Headline:
    """What `prepare` packed."""
    packed: bytes = item["tok"]
    places = range(0, len(packed), 6)
    return Headline(
        {packed[at : at + 4]: (packed[at + 4], packed[at + 5]) for at in places},
        _split(item["blk"]),
        frozenset(_split(item["ent"])),
    )


def compare(first: Headline, second: Headline) -> Comparison:
    """A story's first headline and another headline."""
    shared = sum(weight for digest, (weight, _) in first.tokens.items() if digest in second.tokens)
    left = [_left(first, second), _left(second, first)]
    sides = [sum(kinds_sum) for kinds_sum, _ in left]
    most = [max(kinds_most) for _, kinds_most in left]
    (_, a), (_, b) = left
    union = shared + sides[0] + sides[1]
    conflict = bool(
        (first.entities - second.entities and second.entities - first.entities)
        or (a[NAME] and b[NAME])
        or (a[FACT] and b[FACT])
        or (a[UP] and b[DOWN])
        or (a[DOWN] and b[UP])
        or a[NOT]
        or b[NOT]
        or (min(len(first.tokens), len(second.tokens)) < SHORTEST and max(sides))
        or not union
    )
    if conflict:
        return Comparison(True, ())
    return Comparison(
        False,
        (
            shared / union,
            shared / (shared + min(sides)),
            min(sides) / union,
            min(most) / 100,
            max(most) / 100,
            float(bool(a[FACT] or b[FACT])),
            float(bool(a[NAME] or b[NAME])),
            float(bool(a[UP] or a[DOWN] or b[UP] or b[DOWN])),
        ),
    )


def _left(first: Headline, second: Headline) -> tuple[list[int], list[int]]:
    """By kind, the sum and the most of the weights of the tokens that only the first has."""
    total, most = [0] * KINDS, [0] * KINDS
    for digest, (weight, kind) in first.tokens.items():
        if digest not in second.tokens:
            total[kind] += weight
            most[kind] = max(most[kind], weight)
    return total, most


def _split(packed: bytes) -> tuple[bytes, ...]:
    return tuple(packed[at : at + 4] for at in range(0, len(packed), 4))


class Head(NamedTuple):
    """The first headline of a story."""

    id: str
    start_ms: int
    headline: Headline


class _Slot(NamedTuple):
    """What was written in one stretch of time as long as a story lasts."""

    answers: dict[str, str]  # record id -> story it joined, empty where it began one
    postings: dict[bytes, list[int]]  # digest of a token -> places of headlines in Memory's list


class Memory:
    """`assign_story` of stories.lua in Python: the stories of one life of a topic."""

    def __init__(self, hours: float) -> None:
        self._span = int(hours * 3_600_000)
        self._slots: dict[int, _Slot] = {}
        self._heads: list[Head] = []

    def assign(self, item: dict[str, Any], now_ms: int, ts_ms: int) -> tuple[str, str | None]:
        """The story's id, and the headline that this one repeats, if any; the same answer when it is
        asked again."""
        number = now_ms // self._span
        slots = [self._slots.setdefault(number, _Slot({}, {})), self._slots.get(number - 1, _Slot({}, {}))]
        for slot in slots:
            if item["id"] in slot.answers:
                known = slot.answers[item["id"]]
                return known or item["id"], known or None
        headline = unpack(item)
        best = self.best(item["id"], headline, self._candidates(headline, slots), ts_ms)
        if best:
            slots[0].answers[item["id"]] = best.id
            return best.id, best.id
        slots[0].answers[item["id"]] = ""
        self._heads.append(Head(item["id"], ts_ms, headline))
        for digest in headline.rarest:
            postings = slots[0].postings.setdefault(digest, [])
            postings.append(len(self._heads) - 1)
            del postings[:-POSTINGS]
        return item["id"], None

    def best(self, record_id: str, headline: Headline, candidates: Sequence[Head], ts_ms: int) -> Head | None:  # noqa: ARG002
        """The story that the headline most likely belongs to, if it likely belongs to any."""
        best, best_logit = None, LEAST_LOGIT
        for head in candidates:
            comparison = compare(head.headline, headline)
            if abs(ts_ms - head.start_ms) <= self._span and not comparison.conflict:
                logit = comparison.logit()
                if logit > best_logit:
                    best, best_logit = head, logit
        return best

    def _candidates(self, headline: Headline, slots: Sequence[_Slot]) -> list[Head]:
        """The headlines that share most of the rarest tokens' weight; of equals, the older first."""
        shared: dict[int, int] = {}
        for digest in headline.rarest:
            for slot in slots:
                for place in slot.postings.get(digest, ()):
                    shared[place] = shared.get(place, 0) + headline.tokens[digest][0]
        least = BLOCKING_SHARE * sum(headline.tokens[digest][0] for digest in headline.rarest)
        found = sorted((-weight, place) for place, weight in shared.items() if weight >= least)
        return [self._heads[place] for _, place in found[:CANDIDATES]]
